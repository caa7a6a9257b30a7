//! The records that other registrars leave beside stock servers: Nerve, Curator's ServiceInstance, and
//! Twitter's ServerSet. People run them already, and a cluster that is registered by one needs no other.

use serde_json::{Map, Value};

use crate::endpoint::Endpoint;
use crate::node::{Node, Source};
use crate::record::{RecordError, weight};

/// `{"host":"10.0.0.1","port":4222,"name":"i-1"}`, with more fields by configuration.
pub(crate) fn nerve(record: &Map<String, Value>) -> Result<Node, RecordError> {
    let client = host_and_port(record, "host", "port")?;
    let node = Node {
        weight: weight(record),
        ..Node::at(client, Source::ZooKeeper)
    };
    let name = record.get("name").and_then(Value::as_str).map(str::trim);
    Ok(
        match name.filter(|name| !name.is_empty() && !name.contains(char::is_control)) {
            Some(name) => Node {
                id: name.into(),
                ..node
            },
            None => node,
        },
    )
}

/// Curator's ServiceInstance. `sslPort` counts when `port` is null; `enabled: false` (Curator 4.2 and later)
/// is not serving.
pub(crate) fn curator(record: &Map<String, Value>) -> Result<Option<Node>, RecordError> {
    if record.get("enabled").and_then(Value::as_bool) == Some(false) {
        return Ok(None);
    }
    let has_port = |field| record.get(field).is_some_and(|port| !port.is_null());
    let tls = !has_port("port") && has_port("sslPort");
    let client = host_and_port(record, "address", if tls { "sslPort" } else { "port" })?;
    Ok(Some(Node {
        tls,
        ..Node::at(client, Source::ZooKeeper)
    }))
}

/// ServerSet: only `ALIVE` serves; `STARTING`, `STOPPING`, `DEAD` and the like do not.
pub(crate) fn server_set(record: &Map<String, Value>) -> Result<Option<Node>, RecordError> {
    if record
        .get("status")
        .is_some_and(|status| status.as_str() != Some("ALIVE"))
    {
        return Ok(None);
    }
    let Some(endpoint) = record.get("serviceEndpoint").and_then(Value::as_object) else {
        return Err(RecordError::Field {
            field: "serviceEndpoint",
            reason: "is no object".to_owned(),
        });
    };
    let client = host_and_port(endpoint, "host", "port")?;
    Ok(Some(Node::at(client, Source::ZooKeeper)))
}

fn host_and_port(
    record: &Map<String, Value>,
    host: &'static str,
    port: &'static str,
) -> Result<Endpoint, RecordError> {
    let fail = |field, reason: &str| {
        Err(RecordError::Field {
            field,
            reason: reason.to_owned(),
        })
    };
    let Some(name) = record.get(host).and_then(Value::as_str) else {
        return fail(host, "is no text");
    };
    let number = match record.get(port) {
        Some(Value::Number(number)) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        // Registrars that take their settings from the environment write numbers as texts.
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let Some(number) = number else {
        return fail(port, "is no port from 1 to 65535");
    };
    Endpoint::checked(name, number).map_err(|error| RecordError::Field {
        field: host,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parse;

    fn node(record: &str) -> Node {
        parse(record.as_bytes()).unwrap().unwrap()
    }

    fn at(host: &str, port: u16) -> Node {
        Node::at(Endpoint::new(host, port), Source::ZooKeeper)
    }

    #[test]
    fn nerve_records_are_read() {
        let named = Node {
            id: "i-1".into(),
            ..at("10.0.0.1", 4222)
        };
        assert_eq!(node(r#"{"host":"10.0.0.1","port":4222,"name":"i-1"}"#), named);
        for no_name in ["null", "\"\"", "\" \"", "7", "\"a\\nb\""] {
            let record = format!(r#"{{"host":"10.0.0.1","port":4222,"name":{no_name}}}"#);
            assert_eq!(node(&record), at("10.0.0.1", 4222), "{no_name}");
        }
        assert_eq!(
            node(r#"{"host":"h","port":"4222","name":"i-1","weight":2}"#).weight,
            2
        );
    }

    #[test]
    fn curator_records_are_read() {
        let with = |port: &str, ssl: &str, more: &str| {
            format!(
                r#"{{"name":"nats","id":"f8d2a7c0-7a0e-4dd5-b1f1-1c0bde1a0b1e","address":"10.0.0.1","port":{port},"sslPort":{ssl},
                "payload":null,"registrationTimeUTC":1416830000000,"serviceType":"DYNAMIC","uriSpec":null{more}}}"#
            )
        };
        assert_eq!(node(&with("4222", "null", "")), at("10.0.0.1", 4222));
        assert_eq!(node(&with("4222", "4443", "")), at("10.0.0.1", 4222));
        assert_eq!(
            node(&with("null", "4443", "")),
            Node {
                tls: true,
                ..at("10.0.0.1", 4443)
            }
        );
        assert_eq!(
            parse(with("4222", "null", r#","enabled":false"#).as_bytes()),
            Ok(None)
        );
        assert!(parse(with("null", "null", "").as_bytes()).is_err());
    }

    #[test]
    fn server_set_records_are_read_while_they_are_alive() {
        let with = |status: &str| {
            let head = r#"{"serviceEndpoint":{"host":"h","port":4222},"additionalEndpoints":{},"status":"#;
            format!(r#"{head}"{status}","shard":0}}"#)
        };
        assert_eq!(node(&with("ALIVE")), at("h", 4222));
        assert_eq!(parse(with("STOPPING").as_bytes()), Ok(None));
        assert_eq!(parse(with("DEAD").as_bytes()), Ok(None));
    }
}
