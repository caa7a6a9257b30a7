//! Settings of an imaginary program, for the tests of this folder.

use serde::{Deserialize, Serialize};
use toml::Table;

use super::{Places, Schema, Secs, Settings, SettingsError, masked_url, refused};

const DEFAULTS: &str = "\
listen = [\"127.0.0.1:4222\"]
port = 4222

[nodes]
upstream = []
secret_file = \"\"
gossip = true

[session]
buffer_bytes = 8_388_608
ping_interval_secs = 120
ping_max = 2

[health]
probe_interval_ms = 1000

[http]
listen = \"\"

[publish]
subject = []

[log]
level = \"info\"
format = \"human\"
";

pub(crate) const SCHEMA: Schema = Schema {
    defaults: DEFAULTS,
    defaults_file: "deploy/sample.toml",
    ranges: &[("session.ping_max", 1, 100)],
    words: &[("log.format", &["human", "json"])],
    tables: &[("publish.subject", "{ pattern }")],
    secret_files: &["nodes.secret_file"],
    restart: &["listen", "log.format"],
    variables: &[("NATS_URL", "nodes.upstream")],
    other_format: None,
    masked: |key, text| (key == "nodes.upstream").then(|| masked_url(text)),
    text: |key, place, text| match key {
        "nodes.upstream" if text.contains("://") && !text.starts_with("nats://") => {
            Err(refused(key, place, "nats://host:port", &masked_url(text)))
        }
        "nodes.upstream" if text.is_empty() => Err(refused(key, place, "nats://host:port", text)),
        _ => Ok(()),
    },
    table: |key, place, table| match table.get("pattern") {
        Some(_) => Ok(()),
        None => Err(refused(key, place, "{ pattern }", "missing")),
    },
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    pub(crate) listen: Vec<String>,
    pub(crate) port: u16,
    pub(crate) nodes: Nodes,
    pub(crate) session: Session,
    pub(crate) health: Table,
    pub(crate) http: Table,
    pub(crate) publish: Table,
    pub(crate) log: Table,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Nodes {
    pub(crate) upstream: Vec<String>,
    pub(crate) secret_file: String,
    pub(crate) gossip: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) buffer_bytes: usize,
    pub(crate) ping_interval_secs: Secs,
    pub(crate) ping_max: u64,
}

impl Settings for Sample {
    const SCHEMA: &'static Schema = &SCHEMA;

    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError> {
        if self.listen.is_empty() {
            return Err(places.conflict("listen", "listen must name an address".to_owned()));
        }
        let (secs, max) = (self.session.ping_interval_secs.0, self.session.ping_max);
        if secs * max > 3600 {
            let rule = format!(
                "session.ping_interval_secs ({secs}) and session.ping_max ({max}) are more than an hour"
            );
            return Err(places.conflict("session.ping_interval_secs", rule));
        }
        Ok(())
    }

    fn check_complete(&self) -> Result<(), SettingsError> {
        if self.nodes.upstream.is_empty() {
            return Err(SettingsError::Missing("no nodes: give NATS_URL"));
        }
        Ok(())
    }
}
