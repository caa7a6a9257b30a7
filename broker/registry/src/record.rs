//! The record that a `standin-broker` node keeps in its znode. The formats of other registrars are in `registrars.rs`.
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

impl Node {
    /// Returns the record of the node, which is the data of its znode.
    pub fn to_record(&self) -> String {
        json!({
            "v": VERSION,
            "id": *self.id,
            "run": *self.run,
            "client": self.client,
            "mesh": self.mesh,
            "http": self.http,
            "tls": self.tls,
            "zone": *self.zone,
            "weight": self.weight,
            "state": self.state.as_str(),
            "version": *self.version,
        })
        .to_string()
    }

    /// Checks that the record can be written, and that reading it gives the same record.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for the first invalid field.
    pub fn check_record(&self) -> Result<(), RegistryError> {
        if self.id.contains('/') {
            let reason = "the name of a znode has no '/'";
            return Err(RegistryError::setting("id", &self.id, reason));
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

/// Returns the error about a record of `size` bytes, which are too many.
pub(crate) fn too_large(size: usize) -> String {
    format!("{size} bytes are above the limit of {RECORD_BYTES_MAX}")
}

/// Parses a record of `standin-broker`. Returns `None` for any other data.
pub(crate) fn parse_own(bytes: &[u8]) -> Option<Node> {
    if bytes.len() > RECORD_BYTES_MAX {
        return None;
    }
    let json = serde_json::from_slice::<Value>(bytes).ok()?;
    let record = json.as_object().filter(|record| record.contains_key("v"))?;
    standin(record).ok()
}

/// Parses a record of `standin-broker`, in which only the client address is required.
pub(crate) fn standin(record: &Map<String, Value>) -> Result<Node, String> {
    let client = endpoint_text(record, "client")?.ok_or("field client: is null")?;
    let plain = Node::at(client, Source::ZooKeeper);
    // Only the address is needed to use the node, so other invalid fields are ignored.
    Ok(Node {
        id: id(record, "id").map_or_else(|| plain.id.clone(), Into::into),
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
    Some(truncated(text, TEXT_BYTES_MAX)).filter(|text| !text.is_empty())
}

/// Returns the first `bytes_max` bytes of a text from ZooKeeper, or less if a character would be cut.
pub(crate) fn truncated(text: &str, bytes_max: usize) -> &str {
    let mut ends = (0..=bytes_max.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Returns the id in the field `field`. An id with control characters is ignored, because ids are logged.
pub(crate) fn id<'a>(record: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    text(record, field).filter(|id| !id.contains(char::is_control))
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
        let good = Node::new("n1", Endpoint::new("10.0.0.1", 4222));
        assert_eq!(good.check_record(), Ok(()));
        let refused = |change: &dyn Fn(&mut Node)| {
            let mut record = good.clone();
            change(&mut record);
            record.check_record().unwrap_err().to_string()
        };
        for id in ["", ".", "..", "a/b", "a\u{7}", "a\u{e000}", &"x".repeat(257)] {
            assert!(refused(&|r| r.id = id.into()).contains("id"), "{id:?}");
        }
        assert!(refused(&|r| r.run = "".into()).contains("run"));
        assert!(refused(&|r| r.zone = "z".repeat(257).into()).contains("zone"));
        assert!(refused(&|r| r.version = "v".repeat(257).into()).contains("version"));
        assert!(refused(&|r| r.weight = 0).contains("weight"));
        assert!(refused(&|r| r.mesh = Some(Endpoint::new("h", 0))).contains("port 0"));
        assert!(refused(&|r| r.client = Endpoint::new("a b", 1)).contains("contains ' '"));
    }

    #[test]
    fn each_new_node_has_a_run_of_its_own_and_parse_own_reads_only_our_format() {
        let node = |id: &str| Node::new(id, Endpoint::new("10.0.0.1", 4222));
        assert_ne!(node("n1").run, node("n1").run);
        let own = node("n1");
        let read = parse_own(own.to_record().as_bytes()).unwrap();
        assert_eq!(read, own);
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
            let node = Node {
                run: run.into(),
                mesh,
                http,
                tls,
                zone: zone.into(),
                weight,
                state,
                version: version.into(),
                ..Node::new(id, client)
            };
            prop_assume!(node.check_record().is_ok());
            let record = node.to_record();
            prop_assert_eq!(parse_own(record.as_bytes()), Some(node.clone()));
            prop_assert_eq!(registrars::parse(record.as_bytes()), Ok(Some(node)));
        }
    }
}
