//! The record that a node of ours keeps in its znode. The formats of other registrars are in `registrars.rs`.
//!
//! Unknown fields are ignored. If a record has a later version, its known fields are read. So nodes and sidecars can be upgraded in
//! any order.

use serde_json::{Map, Value, json};

use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::node::{Node, NodeState, Source};
use crate::znode_path;

/// Version of the records that this program writes.
const VERSION: u32 = 1;
/// Maximum size of a record, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of the texts in a record (id, run, zone, version), in bytes. Longer texts are truncated when read, and
/// rejected when written.
const TEXT_BYTES_MAX: usize = 256;

/// Description of a node in ZooKeeper, as [`Announcement`](crate::Announcement) writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name of the node in the cluster, and of its znode. It is unique, and the same after a restart.
    pub id: String,
    /// Identifier of the process. It differs for each start of a node.
    pub run: String,
    /// Address for clients.
    pub client: Endpoint,
    /// Address for other nodes.
    pub mesh: Option<Endpoint>,
    /// Address of the HTTP listener.
    pub http: Option<Endpoint>,
    /// Whether clients must use TLS.
    pub tls: bool,
    /// Zone in which the node runs, or empty.
    pub zone: String,
    /// Share of the clients relative to other nodes, at least 1.
    pub weight: u32,
    /// Whether the node accepts new clients.
    pub state: NodeState,
    /// Version of the program.
    pub version: String,
}

impl Record {
    /// Creates the record of a node that is up, with a new `run` and the weight 1. All else is empty.
    pub fn new(id: impl Into<String>, client: Endpoint) -> Self {
        Self {
            id: id.into(),
            run: format!("{:016x}", rand::random::<u64>()),
            client,
            mesh: None,
            http: None,
            tls: false,
            zone: String::new(),
            weight: 1,
            state: NodeState::Up,
            version: String::new(),
        }
    }

    /// Returns the data of the znode.
    pub fn to_json(&self) -> String {
        let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string);
        json!({
            "v": VERSION,
            "id": self.id,
            "run": self.run,
            "client": self.client.to_string(),
            "mesh": text(&self.mesh),
            "http": text(&self.http),
            "tls": self.tls,
            "zone": self.zone,
            "weight": self.weight,
            "state": self.state.as_str(),
            "version": self.version,
        })
        .to_string()
    }

    /// Checks that the record can be written, and that reading it gives the same record.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for the first invalid field.
    pub fn check(&self) -> Result<(), RegistryError> {
        if self.id.contains('/') {
            return Err(RegistryError::setting(
                "id",
                &self.id,
                "the name of a znode has no '/'",
            ));
        }
        znode_path::check("id", &format!("/{}", self.id))?;
        for (name, text, must) in [
            ("id", &self.id, true),
            ("run", &self.run, true),
            ("zone", &self.zone, false),
            ("version", &self.version, false),
        ] {
            if must && text.is_empty() {
                return Err(RegistryError::setting(name, text, "it must not be empty"));
            }
            if text.len() > TEXT_BYTES_MAX {
                return Err(RegistryError::setting(name, text, "the maximum is 256 bytes"));
            }
        }
        if self.weight == 0 {
            return Err(RegistryError::setting("weight", 0, "the minimum is 1"));
        }
        let endpoints = [Some(&self.client), self.mesh.as_ref(), self.http.as_ref()];
        for endpoint in endpoints.into_iter().flatten() {
            Endpoint::checked(&endpoint.host, endpoint.port)?;
        }
        Ok(())
    }
}

/// Parses a record of ours. Returns `None` for any other data.
pub(crate) fn parse_own(bytes: &[u8]) -> Option<Node> {
    if bytes.len() > RECORD_BYTES_MAX {
        return None;
    }
    let json = serde_json::from_slice::<Value>(bytes).ok()?;
    let record = json.as_object().filter(|record| record.contains_key("v"))?;
    standin(record).ok()
}

/// Parses a record of ours, in which only the client address is required.
pub(crate) fn standin(record: &Map<String, Value>) -> Result<Node, String> {
    let client = endpoint_text(record, "client")?.ok_or("field client: is null")?;
    let plain = Node::at(client, Source::ZooKeeper);
    // Only the address is needed to use the node, so other invalid fields are ignored.
    Ok(Node {
        id: text(record, "id").map_or_else(|| plain.id.clone(), Into::into),
        run: text(record, "run").unwrap_or_default().into(),
        mesh: endpoint_text(record, "mesh").ok().flatten(),
        http: endpoint_text(record, "http").ok().flatten(),
        tls: record.get("tls").and_then(Value::as_bool).unwrap_or(false),
        zone: text(record, "zone").unwrap_or_default().into(),
        weight: weight(record),
        state: NodeState::of(text(record, "state").unwrap_or_default()),
        version: text(record, "version").unwrap_or_default().into(),
        ..plain
    })
}

fn endpoint_text(record: &Map<String, Value>, field: &str) -> Result<Option<Endpoint>, String> {
    match record.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match text.parse() {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(error) => Err(format!("field {field}: {error}")),
        },
        Some(_) => Err(format!("field {field}: is not a string")),
    }
}

fn text<'a>(record: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    let text = record.get(field)?.as_str()?;
    let end = (0..=TEXT_BYTES_MAX.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end))?;
    (end > 0).then(|| &text[..end])
}

pub(crate) fn weight(record: &Map<String, Value>) -> u32 {
    let weight = record.get("weight").and_then(Value::as_u64).unwrap_or(1);
    u32::try_from(weight).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrars;
    use proptest::prelude::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        let host = prop_oneof![
            "[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?",
            Just("2001:db8::1".to_owned())
        ];
        (host, 1u16..).prop_map(|(host, port)| Endpoint::new(host, port))
    }

    #[test]
    fn the_error_of_an_invalid_record_names_the_field() {
        let good = Record::new("n1", Endpoint::new("10.0.0.1", 4222));
        assert_eq!(good.check(), Ok(()));
        let refused = |change: &dyn Fn(&mut Record)| {
            let mut record = good.clone();
            change(&mut record);
            record.check().unwrap_err().to_string()
        };
        for id in ["", ".", "..", "a/b", "a\u{7}", "a\u{e000}", &"x".repeat(257)] {
            assert!(refused(&|r| r.id = id.into()).contains("id"), "{id:?}");
        }
        assert!(refused(&|r| r.run = String::new()).contains("run"));
        assert!(refused(&|r| r.zone = "z".repeat(257)).contains("zone"));
        assert!(refused(&|r| r.version = "v".repeat(257)).contains("version"));
        assert!(refused(&|r| r.weight = 0).contains("weight"));
        assert!(refused(&|r| r.mesh = Some(Endpoint::new("h", 0))).contains("port 0"));
        assert!(refused(&|r| r.client = Endpoint::new("a b", 1)).contains("contains ' '"));
    }

    #[test]
    fn each_record_has_a_new_run_and_other_formats_are_not_ours() {
        let record = |id: &str| Record::new(id, Endpoint::new("10.0.0.1", 4222));
        assert_ne!(record("n1").run, record("n1").run);
        let own = record("n1");
        let read = parse_own(own.to_json().as_bytes()).unwrap();
        assert_eq!((&*read.id, &*read.run), ("n1", &*own.run));
        for other in [
            "10.0.0.1:4222",
            "",
            "{",
            r#"{"client":"10.0.0.1:4222"}"#,
            r#"{"host":"h","port":1}"#,
        ] {
            assert_eq!(parse_own(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_written_record_is_read_unchanged(
            (id, run) in ("[^/\\pC]{1,60}", "\\PC{1,60}"),
            client in endpoint(),
            mesh in proptest::option::of(endpoint()),
            http in proptest::option::of(endpoint()),
            (tls, draining) in (any::<bool>(), any::<bool>()),
            (zone, version) in ("\\PC{0,60}", any::<String>()),
            weight in 1u32..,
        ) {
            let state = if draining { NodeState::Draining } else { NodeState::Up };
            let version: String = version.chars().take(60).collect();
            let record = Record { id, run, client, mesh, http, tls, zone, weight, state, version };
            prop_assume!(record.check().is_ok());
            let wanted = Node {
                id: record.id.clone().into(),
                run: record.run.clone().into(),
                mesh: record.mesh.clone(),
                http: record.http.clone(),
                tls: record.tls,
                zone: record.zone.clone().into(),
                weight: record.weight,
                state: record.state,
                version: record.version.clone().into(),
                ..Node::at(record.client.clone(), Source::ZooKeeper)
            };
            let json = record.to_json();
            prop_assert_eq!(parse_own(json.as_bytes()), Some(wanted.clone()));
            prop_assert_eq!(registrars::parse(json.as_bytes()), Ok(Some(wanted)));
        }

    }
}
