//! Parsers for the znodes of all registrars: our own record, plain `host:port`, Nerve, Curator's ServiceInstance, and Twitter's
//! ServerSet. A cluster of `nats-server` that is already registered by one of these needs no further registrar.

use serde_json::{Map, Value};

use crate::endpoint::Endpoint;
use crate::node::{Node, Source};
use crate::record::{RECORD_BYTES_MAX, id, standin, too_large, weight};

const NO_FORMAT: &str = "neither JSON nor host:port";

/// Parses the data of a znode. Returns `None` if the record says that the node does not serve clients.
///
/// # Errors
/// The reason why the data is not a record.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Node>, String> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(too_large(bytes.len()));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("the znode is empty".to_owned());
    }
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else {
        let text = std::str::from_utf8(bytes).map_err(|_| NO_FORMAT)?;
        return plain(text).map(Some);
    };
    match &json {
        Value::String(text) => plain(text).map(Some),
        Value::Object(record) if record.contains_key("client") => standin(record).map(Some),
        Value::Object(record) if record.contains_key("serviceEndpoint") => server_set(record),
        Value::Object(record) if record.contains_key("address") => curator(record),
        Value::Object(record) if record.contains_key("host") => nerve(record).map(Some),
        Value::Object(_) => Err("JSON without client, serviceEndpoint, address or host".to_owned()),
        _ => Err(NO_FORMAT.to_owned()),
    }
}

fn plain(text: &str) -> Result<Node, String> {
    let client = text.trim().parse::<Endpoint>().map_err(|_| NO_FORMAT)?;
    Ok(Node::at(client, Source::ZooKeeper))
}

/// Parses a record of Nerve: `{"host":"10.0.0.1","port":4222,"name":"i-1"}`, possibly with more fields.
fn nerve(record: &Map<String, Value>) -> Result<Node, String> {
    let client = host_and_port(record, "host", "port")?;
    let mut node = Node::at(client, Source::ZooKeeper);
    node.weight = weight(record);
    if let Some(name) = id(record, "name").map(str::trim).filter(|name| !name.is_empty()) {
        node.id = name.into();
    }
    Ok(node)
}

/// Parses a ServiceInstance of Curator. `sslPort` is used if `port` is null. With `enabled: false` (Curator 4.2 and later) the
/// node does not serve clients.
fn curator(record: &Map<String, Value>) -> Result<Option<Node>, String> {
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

/// Parses a ServerSet. The node serves clients only if its status is `ALIVE` or missing. Other statuses are `STARTING`, `STOPPING`
/// and `DEAD`.
fn server_set(record: &Map<String, Value>) -> Result<Option<Node>, String> {
    let status = record.get("status");
    if status.is_some_and(|status| status.as_str() != Some("ALIVE")) {
        return Ok(None);
    }
    let endpoint = record.get("serviceEndpoint").and_then(Value::as_object);
    let endpoint = endpoint.ok_or("field serviceEndpoint: is not an object")?;
    let client = host_and_port(endpoint, "host", "port")?;
    Ok(Some(Node::at(client, Source::ZooKeeper)))
}

fn host_and_port(record: &Map<String, Value>, host: &str, port: &str) -> Result<Endpoint, String> {
    let name = record.get(host).and_then(Value::as_str);
    let name = name.ok_or_else(|| format!("field {host}: is not a string"))?;
    let number = match record.get(port) {
        Some(Value::Number(number)) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        // Registrars configured by environment variables write numbers as strings.
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("field {port}: is not a port from 1 to 65535"))?;
    Endpoint::checked(name, number).map_err(|error| format!("field {host}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeState;
    use proptest::prelude::*;

    fn node(record: &str) -> Node {
        parse(record.as_bytes()).unwrap().unwrap()
    }

    fn at(host: &str, port: u16) -> Node {
        Node::at(Endpoint::new(host, port), Source::ZooKeeper)
    }

    #[test]
    fn our_own_record_is_read_completely() {
        let read = node(
            r#"{"v":1,"id":"n1","run":"7f","client":"10.0.0.1:4222","mesh":"10.0.0.1:6222","http":null,"tls":true,
                "zone":"a","weight":3,"state":"draining","version":"0.1.0"}"#,
        );
        let wanted = Node {
            id: "n1".into(),
            run: "7f".into(),
            mesh: Some(Endpoint::new("10.0.0.1", 6222)),
            tls: true,
            zone: "a".into(),
            weight: 3,
            state: NodeState::Draining,
            version: "0.1.0".into(),
            ..at("10.0.0.1", 4222)
        };
        assert_eq!(read, wanted);
    }

    #[test]
    fn known_fields_of_a_later_version_of_our_record_are_read() {
        let read = node(
            r#"{"v":7,"client":"[::1]:4222","mesh":{"tcp":1},"weight":"heavy","state":"resting","new":[1]}"#,
        );
        assert_eq!(read, at("::1", 4222));
    }

    #[test]
    fn the_id_of_a_node_with_a_plain_address_is_that_address() {
        assert_eq!(node("10.0.0.1:4222\n"), at("10.0.0.1", 4222));
        assert_eq!(&*node("\"10.0.0.1:4222\"").id, "10.0.0.1:4222");
    }

    #[test]
    fn the_error_of_invalid_data_has_a_reason() {
        for (record, reason) in [
            ("", "empty"),
            (" \n", "empty"),
            ("garbage", "neither"),
            ("[1]", "neither"),
            ("{}", "without client"),
            (r#"{"client":null}"#, "client: is null"),
            (r#"{"client":"nowhere"}"#, "port is missing"),
            (r#"{"host":"h","port":0}"#, "port 0"),
            (r#"{"host":"h","port":70000}"#, "port: is not a port"),
            (r#"{"host":"h"}"#, "port: is not a port"),
            (r#"{"host":7,"port":1}"#, "host: is not a string"),
            (r#"{"serviceEndpoint":1,"status":"ALIVE"}"#, "serviceEndpoint"),
        ] {
            let error = parse(record.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{record}: {error}");
        }
        assert!(parse(&[0xff, 0xfe]).is_err());
        assert!(parse(&vec![b'1'; RECORD_BYTES_MAX + 1]).is_err());
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
    fn a_server_set_record_with_another_status_than_alive_is_not_used() {
        let with = |status: &str| {
            let head = r#"{"serviceEndpoint":{"host":"h","port":4222},"additionalEndpoints":{},"status":"#;
            format!(r#"{head}"{status}","shard":0}}"#)
        };
        assert_eq!(node(&with("ALIVE")), at("h", 4222));
        assert_eq!(parse(with("STOPPING").as_bytes()), Ok(None));
        assert_eq!(parse(with("DEAD").as_bytes()), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_almost_valid_record_causes_a_panic(
            field in "(client|mesh|host|port|address|sslPort|serviceEndpoint|status|weight|id|zone)",
            other in "(client|mesh|host|port|address|sslPort|serviceEndpoint|status|weight|id|zone)",
            value in "(null|1|-1|4222|1e400|true|\"\"|\"[::1]:1\"|\"h:1\"|\"\\\\ud800\"|\\{\\}|\\[\\])",
            text in "\\PC{0,300}",
        ) {
            let text = Value::String(text).to_string();
            let _ = parse(format!(r#"{{"{field}":{value},"{other}":{text},"host":"h","port":1}}"#).as_bytes());
        }

        #[test]
        fn every_plain_address_is_read(host in "[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?", port in 1u16..) {
            // Even a host of digits with a port is not valid JSON, so it is not parsed as another format.
            prop_assert_eq!(parse(format!("{host}:{port}").as_bytes()).unwrap().unwrap(), at(&host, port));
        }
    }
}
