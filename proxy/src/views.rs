//! `standin-proxy nodes` and `standin-proxy sessions`: the pages `/nodez` and `/sessionz` of the running sidecar as tables.

use serde_json::Value;
use standin_daemon::live_view::View;
use standin_daemon::page_client::PageClient;
use standin_daemon::settings::{SettingsError, secret_file};
use standin_daemon::table::Table;
use standin_daemon::terminal::Terminal;

use crate::settings::Settings;

/// Rows that are requested. The sidecar returns at most `http.page_items_max`.
const ROWS_MAX: usize = 10_000;

/// A column: its heading, and its text in a row of the page.
type Column = (&'static str, fn(&Value) -> String);

/// A view of the running sidecar.
#[derive(Debug, Clone, Copy)]
pub struct PageView {
    page: &'static str,
    name: &'static str,
    columns: &'static [Column],
}

/// `standin-proxy nodes`.
pub const NODES: PageView = PageView {
    page: "/nodez",
    name: "nodes",
    columns: &[
        ("NODE", |row| text(row, "id")),
        ("ADDRESS", |row| text(row, "client")),
        ("STATE", |row| {
            let state = text(row, "state");
            match row["withdrawn"].as_bool() {
                Some(true) => format!("{state}, withdrawn"),
                _ => state,
            }
        }),
        ("SOURCE", |row| text(row, "source")),
        ("ZONE", |row| text(row, "zone")),
        ("SESSIONS", |row| text(row, "sessions")),
        ("COOLING", |row| match row["cooling_ms"].as_u64() {
            Some(0) | None => String::new(),
            Some(millis) => format!("{:.1} s", millis as f64 / 1000.0),
        }),
        ("FAILURES", |row| text(row, "failures")),
        ("LAST ERROR", |row| match row["last_error_secs"].as_u64() {
            Some(secs) => format!("{} ago: {}", time(secs), text(row, "last_error")),
            None => text(row, "last_error"),
        }),
    ],
};

/// `standin-proxy sessions`.
pub const SESSIONS: PageView = PageView {
    page: "/sessionz",
    name: "sessions",
    columns: &[
        ("ID", |row| text(row, "id")),
        ("COMPONENT", |row| text(row, "component")),
        ("NAME", |row| text(row, "client_name")),
        ("NODE", |row| text(row, "node")),
        ("STATE", |row| match row["searching_secs"].as_u64() {
            Some(secs) => format!("{} for {}", text(row, "state"), time(secs)),
            None => text(row, "state"),
        }),
        ("AGE", |row| {
            row["connected_secs"].as_u64().map(time).unwrap_or_default()
        }),
        ("SUBS", |row| text(row, "subscriptions")),
        ("TO NODE", |row| text(row, "messages_to_node")),
        ("TO COMPONENT", |row| text(row, "messages_to_component")),
        ("BUFFERED", |row| text(row, "buffered_bytes")),
        ("IN DOUBT", |row| text(row, "in_doubt")),
        ("MOVES", |row| text(row, "failovers")),
    ],
};

/// Returns a client for the pages of the sidecar that runs with these settings.
///
/// # Errors
/// The reason why the pages cannot be reached: they are off, or the file of the token cannot be read.
pub fn pages(settings: &Settings) -> Result<PageClient, String> {
    let Some(address) = settings.http_listen() else {
        return Err("the settings have no http.listen: name the address of the sidecar's pages with --http, or give its --config".to_owned());
    };
    let token = secret_file("file of http.token_file", "http", &settings.http.token_file);
    let token = token.map_err(|error: SettingsError| error.to_string())?;
    Ok(PageClient {
        address: reachable(&address),
        is_own: true,
        tls: settings.tls.http.clone(),
        token: token.as_deref().map(Into::into),
    })
}

/// Returns the address by which this host reaches a program that listens on `address`.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

impl PageView {
    /// Returns the page as the sidecar sends it.
    ///
    /// # Errors
    /// The reason why there is no page.
    pub async fn json(&self, pages: &PageClient) -> Result<String, String> {
        Ok(pages.get(&self.path()).await?.text + "\n")
    }

    /// Returns the page as a table, below a line with the number of rows and the address of the pages.
    ///
    /// # Errors
    /// The reason why there is no page.
    pub async fn lines(&self, pages: &PageClient, terminal: &Terminal) -> View {
        let page = pages.json(&self.path()).await?;
        let rows = page["items"].as_array().ok_or_else(|| {
            format!(
                "{}{} is no page of a sidecar: --http must be the address of the sidecar's pages",
                pages.address, self.page
            )
        })?;
        let headings: Vec<&str> = self.columns.iter().map(|(heading, _)| *heading).collect();
        let mut table = Table::new(&headings);
        for row in rows {
            table.add(self.columns.iter().map(|(_, text)| text(row)).collect());
        }
        let total = page["total"].as_u64().unwrap_or_default();
        let mut heading = format!("{} {total}", self.name);
        if (rows.len() as u64) < total {
            heading += &format!(", the first {} (http.page_items_max)", rows.len());
        }
        let heading = format!("{heading}, sidecar {}", pages.address);
        Ok([heading].into_iter().chain(table.lines(terminal)).collect())
    }

    fn path(&self) -> String {
        format!("{}?limit={ROWS_MAX}", self.page)
    }
}

/// Returns a field of a row as text: nothing for `null`.
fn text(row: &Value, field: &str) -> String {
    match &row[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns a duration in whole days, hours, minutes or seconds: in the largest of these units that is not longer than the duration.
fn time(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}
