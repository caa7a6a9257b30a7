//! `standin-broker import`: prints a settings file of `nats-server` as settings of this program, in TOML.
//!
//! The file is converted as if the server read it (`natsconf`). Each key is one line, with its place in the given file. What cannot be
//! carried over is a comment, and a line on standard error. The result is loaded before it is printed, so it is always accepted. A file
//! with an invalid user, permission or certificate is refused: without these keys, the server would admit everybody.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use standin_daemon::cli::{EXIT_DONE, EXIT_INCOMPLETE, EXIT_UNAVAILABLE, EXIT_USAGE};
use standin_daemon::settings::{FILE_BYTES_MAX, Item, Place, Settings as _, of_text};
use standin_tls::bounded_file;
use toml::Value;

use crate::cli::ImportFlags;
use crate::natsconf::{self, Remark};
use crate::settings::{Settings, SettingsError};

const PROGRAM: &str = "standin-broker import";

/// Prints the settings. Returns the exit code.
#[must_use]
pub fn run(flags: &ImportFlags) -> u8 {
    let name = flags.file.display().to_string();
    let read = bounded_file::read_text(&flags.file, FILE_BYTES_MAX);
    let imported = read
        .map_err(|error| format!("cannot read {name}: {error}"))
        .and_then(|text| Imported::of(&name, &text).map_err(|error| error.to_string()));
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            error.lines().for_each(|line| eprintln!("{PROGRAM}: {line}"));
            return EXIT_USAGE;
        }
    };
    if let Err(error) = io::stdout().lock().write_all(imported.toml.as_bytes()) {
        eprintln!("{PROGRAM}: cannot write to standard output: {error}");
        return EXIT_UNAVAILABLE;
    }
    for remark in &imported.left_out {
        eprintln!("{PROGRAM}: not carried over: {remark}");
    }
    if imported.left_out.is_empty() {
        EXIT_DONE
    } else {
        EXIT_INCOMPLETE
    }
}

/// A converted file.
#[derive(Debug)]
struct Imported {
    toml: String,
    /// What could not be carried over, in the order of the file.
    left_out: Vec<Remark>,
}

/// One key of the result, or a remark about one that could not be carried over.
enum Row {
    Key(Item),
    LeftOut(Remark),
}

impl Row {
    fn place(&self) -> &Place {
        match self {
            Self::Key(item) => &item.place,
            Self::LeftOut(remark) => &remark.place,
        }
    }

    /// Returns whether the key says who may do what. Without such a key, the server would admit more than the given file does.
    fn is_about_access(&self) -> bool {
        let keys = [
            "authorization.",
            "accounts",
            "tls.",
            "cluster.user",
            "cluster.password",
            "cluster.permissions",
        ];
        match self {
            Self::Key(item) => keys.iter().any(|key| item.key.starts_with(key)),
            Self::LeftOut(_) => false,
        }
    }

    /// Returns the lines of the row.
    fn text(&self) -> String {
        match self {
            Self::Key(item) => {
                let key = item.key.rsplit('.').next().unwrap_or(&item.key);
                let value = match &item.value {
                    Value::Array(items) if items.iter().any(Value::is_table) => {
                        let items = items.iter().map(|item| format!("    {item},\n"));
                        format!("[\n{}]", items.collect::<String>())
                    }
                    value => value.to_string(),
                };
                format!("{key} = {value}  # {}, {}\n", item.place, item.name)
            }
            Self::LeftOut(remark) => {
                let text = remark.to_string();
                let line = |line| format!("# not carried over: {line}\n");
                text.lines().map(line).collect()
            }
        }
    }
}

impl Imported {
    /// Converts `text`, which errors and comments call `name`.
    fn of(name: &str, text: &str) -> Result<Self, SettingsError> {
        let (items, remarks) = natsconf::convert(name, text)?;
        let keys = last_of_each(items).into_iter().map(Row::Key);
        let mut rows: Vec<Row> = keys.chain(remarks.into_iter().map(Row::LeftOut)).collect();
        loop {
            let document = document(name, &rows);
            let Err(error) = of_text::<Settings>(name, &document.toml) else {
                let remarks = rows.into_iter().filter_map(|row| match row {
                    Row::Key(_) => None,
                    Row::LeftOut(remark) => Some(remark),
                });
                let mut left_out: Vec<Remark> = remarks.collect();
                left_out.sort_by_key(|remark| remark.place.rank());
                return Ok(Self {
                    toml: document.toml,
                    left_out,
                });
            };
            let refused = refused(error, &document.rows)?;
            for (row, text) in refused {
                let place = rows[row].place().clone();
                if rows[row].is_about_access() {
                    return Err(SettingsError::Conflict { place, rule: text });
                }
                rows[row] = Row::LeftOut(Remark { place, text });
            }
        }
    }
}

/// Returns the items without those that a later one of the same key replaces.
fn last_of_each(items: Vec<Item>) -> Vec<Item> {
    let last: HashMap<String, usize> = items
        .iter()
        .enumerate()
        .map(|(at, item)| (item.key.clone(), at))
        .collect();
    let numbered = items.into_iter().enumerate();
    numbered
        .filter(|(at, item)| last[&item.key] == *at)
        .map(|(_, item)| item)
        .collect()
}

/// Returns the rows that the errors are about, each with the text of its error.
///
/// # Errors
/// An error that is about none of them.
fn refused(error: SettingsError, lines: &[Option<usize>]) -> Result<HashMap<usize, String>, SettingsError> {
    let mut refused = HashMap::new();
    for error in error.each() {
        let remark = Remark::of(&error);
        let row = remark.as_ref().and_then(|remark| match remark.place {
            Place::File(_, line) => *lines.get(line - 1)?,
            _ => None,
        });
        let Some((row, remark)) = row.zip(remark) else {
            return Err(error);
        };
        refused.insert(row, remark.text);
    }
    Ok(refused)
}

/// The TOML text, and the number of the row of each of its lines.
struct Rendered {
    toml: String,
    rows: Vec<Option<usize>>,
}

impl Rendered {
    fn push(&mut self, text: &str, row: Option<usize>) {
        self.toml.push_str(text);
        self.rows.extend(text.lines().map(|_| row));
    }
}

/// Renders the rows: keys above the first section, then the sections in the order of the file. A remark stands in the section of the key
/// before it.
fn document(name: &str, rows: &[Row]) -> Rendered {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].place().rank());
    let mut sections: Vec<(&str, Vec<usize>)> = vec![("", Vec::new())];
    let mut present = 0;
    for at in order {
        if let Row::Key(item) = &rows[at] {
            let section = item.key.rsplit_once('.').map_or("", |(section, _)| section);
            present = sections
                .iter()
                .position(|(known, _)| *known == section)
                .unwrap_or_else(|| {
                    sections.push((section, Vec::new()));
                    sections.len() - 1
                });
        }
        sections[present].1.push(at);
    }
    let mut rendered = Rendered {
        toml: String::new(),
        rows: Vec::new(),
    };
    rendered.push(&head(name, rows), None);
    for (section, rows_of_section) in sections {
        if !section.is_empty() {
            rendered.push(&format!("\n[{section}]\n"), None);
        }
        for at in rows_of_section {
            // A comment cannot contain control characters.
            let text = rows[at].text();
            match &rows[at] {
                Row::Key(_) => rendered.push(&text, Some(at)),
                Row::LeftOut(_) => rendered.push(&text.replace(is_forbidden, "?"), Some(at)),
            }
        }
    }
    rendered
}

fn is_forbidden(letter: char) -> bool {
    letter.is_control() && letter != '\n'
}

/// Returns the comment at the top of the result.
fn head(name: &str, rows: &[Row]) -> String {
    let mut head = format!(
        "# Settings of standin-broker, imported from {}.\n",
        name.replace(is_forbidden, "?")
    );
    head += "# Behind each key: its place and name there. deploy/broker.toml describes all keys.\n";
    let is_secret = |row: &Row| match row {
        Row::Key(item) => Settings::SCHEMA.has_secret(&item.key, &item.value),
        Row::LeftOut(_) => false,
    };
    if rows.iter().any(is_secret) {
        head += "# Secrets of that file are here too: chmod 600 this file. A password of a client may be a bcrypt hash instead. Private keys,\n\
                 # the token of the pages and the credentials for ZooKeeper stay in files of their own (the keys *_file).\n";
    }
    let left_out = rows.iter().filter(|row| matches!(row, Row::LeftOut(_))).count();
    if left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(
            head,
            "# Keys that could not be carried over: {left_out} (search for \"not carried over\"). Read them before you use this file: without\n\
             # them, the server may admit clients that it should refuse."
        );
    }
    head + "\n"
}

#[cfg(test)]
mod tests;
