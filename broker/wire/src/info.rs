//! The JSON argument of INFO, in which a server describes itself.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::limits::{INFO_LINE_BYTES_MAX, PAYLOAD_BYTES_DEFAULT};

/// Value of `go` and `git_commit` if the server does not send them.
pub const UNKNOWN: &str = "unknown";

/// The fields of INFO. A missing field is empty, off or zero, unless its description names another default. Unknown fields
/// are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Identifier of the server process. It changes with each start.
    pub server_id: String,
    /// Name of the server.
    pub server_name: String,
    /// Version of the server.
    pub version: String,
    /// Protocol version of the server. 1: it sends INFO at any time to clients with `protocol` 1.
    pub proto: u32,
    /// Commit from which the server was built. Default: [`UNKNOWN`].
    pub git_commit: String,
    /// Version of the compiler; for `nats-server`, that of Go. Default: [`UNKNOWN`]. Some client libraries reject an INFO
    /// without this field.
    pub go: String,
    /// Address for clients.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// The server accepts HPUB and sends HMSG.
    pub headers: bool,
    /// CONNECT must contain credentials.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auth_required: bool,
    /// The connection continues in TLS after INFO.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_required: bool,
    /// The connection continues in TLS after INFO if the client begins TLS, and else without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_available: bool,
    /// The client must present a certificate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_verify: bool,
    /// Largest payload, in bytes. Negative: no limit. Default: 1 MiB.
    pub max_payload: i64,
    /// JetStream is available.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub jetstream: bool,
    /// The server's number for this connection. 0: unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The client's address as the server sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// Name of the cluster that the server belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Text to be signed by a client that authenticates with a key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Addresses of the cluster's nodes, `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// Lame duck: the server will shut down, and clients should connect to another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ldm: bool,
    /// Marks (random identifiers) of the sidecars between the client and the server, nearest to the client first, joined by `-`.
    /// A sidecar that finds its own mark here is connected to itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sidecars: String,
    /// The server knows MOVE; see [`moves`](crate::moves).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Default for Info {
    fn default() -> Self {
        Self {
            server_id: String::new(),
            server_name: String::new(),
            version: String::new(),
            proto: 0,
            git_commit: UNKNOWN.to_owned(),
            go: UNKNOWN.to_owned(),
            host: String::new(),
            port: 0,
            headers: false,
            auth_required: false,
            tls_required: false,
            tls_available: false,
            tls_verify: false,
            max_payload: PAYLOAD_BYTES_DEFAULT as i64,
            jetstream: false,
            client_id: 0,
            client_ip: String::new(),
            cluster: String::new(),
            nonce: String::new(),
            connect_urls: Vec::new(),
            ldm: false,
            sidecars: String::new(),
            moves: false,
        }
    }
}

impl Info {
    /// Parses the argument of INFO.
    ///
    /// # Errors
    /// The error of `serde_json` if `json` is not a JSON object or a field has the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        crate::json::object(Map::new(), json)
    }

    /// Makes the names safe for hand-written parsers, which many early clients use instead of a JSON parser. Each character
    /// that may confuse such a parser becomes `_`. The nonce is not changed, because clients sign it.
    #[must_use]
    pub fn with_safe_names(mut self) -> Self {
        let names = [
            &mut self.sidecars,
            &mut self.server_id,
            &mut self.server_name,
            &mut self.version,
            &mut self.git_commit,
            &mut self.go,
            &mut self.cluster,
        ];
        for name in names {
            if name.chars().any(is_unsafe) {
                *name = name.replace(is_unsafe, "_");
            }
        }
        for name in [&mut self.git_commit, &mut self.go] {
            if name.is_empty() {
                UNKNOWN.clone_into(name);
            }
        }
        self
    }

    /// Returns the line `INFO {json}\r\n`. `auth_required` and `tls_required` are always in it, even if they are off: the
    /// oldest servers always sent them, and hand-written parsers search for them.
    #[must_use]
    pub fn line(&self) -> String {
        let mut json = self.json();
        json.pop();
        for (name, is_on) in [
            ("auth_required", self.auth_required),
            ("tls_required", self.tls_required),
        ] {
            if !is_on {
                // Writing to a string cannot fail.
                let _ = write!(json, ",\"{name}\":false");
            }
        }
        format!("INFO {json}}} \r\n")
    }

    /// Returns [`line`](Self::line) without `auth_required` and `tls_required` if they are off.
    #[must_use]
    pub fn brief_line(&self) -> String {
        format!("INFO {} \r\n", self.json())
    }

    fn json(&self) -> String {
        // The serialization of strings, numbers and flags cannot fail.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Returns a line of at most [`INFO_LINE_BYTES_MAX`] bytes. If the whole line is longer, fields are removed or shortened
    /// until it fits, beginning with what old clients need least. The fields that some client library requires
    /// (`server_id version proto go git_commit host port headers max_payload client_id`) are never removed. The nonce is
    /// never shortened, because its signature would be invalid; it is removed as one of the last.
    #[must_use]
    pub fn short_line(&self) -> String {
        let line = self.line();
        if line.len() <= INFO_LINE_BYTES_MAX {
            return line;
        }
        let mut short = self.clone().with_safe_names();
        let trims: [fn(&mut Self); 16] = [
            |_| {},
            |info| info.moves = false,
            |info| info.cluster.clear(),
            |info| info.connect_urls.clear(),
            |info| info.client_ip.clear(),
            |info| shorten(&mut info.server_name, 64),
            |info| shorten(&mut info.git_commit, 16),
            |info| shorten(&mut info.go, 16),
            |info| shorten(&mut info.version, 24),
            |info| shorten(&mut info.server_id, 64),
            |info| info.server_name.clear(),
            |info| shorten(&mut info.host, 128),
            |info| shorten(&mut info.host, 64),
            |info| info.sidecars.clear(),
            |info| info.nonce.clear(),
            |info| info.host.clear(),
        ];
        let mut line = String::new();
        for trim in trims {
            trim(&mut short);
            line = short.brief_line();
            if line.len() <= INFO_LINE_BYTES_MAX {
                break;
            }
        }
        line
    }
}

/// Returns whether `character` may confuse a hand-written parser: JSON syntax, white space, control and non-ASCII characters.
fn is_unsafe(character: char) -> bool {
    !character.is_ascii_graphic() || "[]{}:,\"'\\".contains(character)
}

fn shorten(text: &mut String, bytes_max: usize) {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_of_servers_is_parsed() {
        let info =
            Info::parse(br#"{"server_id":"x","max_payload":1048576,"unknown":{"a":1},"ldm":true}"#).unwrap();
        assert!(info.ldm && info.server_id == "x" && info.max_payload == 1_048_576);
        assert_eq!(Info::parse(b"{}").unwrap().max_payload, 1_048_576);
        let unlimited = Info::parse(br#"{"max_payload":-1}"#).unwrap();
        assert_eq!(unlimited.max_payload, -1);
        assert!(Info::parse(b"[").is_err());
    }

    #[test]
    fn a_line_parses_to_the_same_info() {
        let info = Info {
            server_id: "a".into(),
            nonce: "n".into(),
            connect_urls: vec!["h:1".into()],
            ..Info::default()
        };
        let line = info.line();
        let json = line.strip_prefix("INFO ").unwrap().strip_suffix("\r\n").unwrap();
        assert_eq!(Info::parse(json.as_bytes()).unwrap(), info);
    }

    fn oversized() -> Info {
        let long = "é".repeat(4000);
        Info {
            server_id: long.clone(),
            server_name: long.clone(),
            version: long.clone(),
            git_commit: long.clone(),
            go: long.clone(),
            host: "h".repeat(4000),
            client_ip: long,
            nonce: "n".repeat(22),
            max_payload: i64::MIN,
            client_id: u64::MAX,
            port: u16::MAX,
            proto: u32::MAX,
            cluster: "c".repeat(300),
            connect_urls: vec!["10.0.0.1:4222".into(); 100],
            auth_required: true,
            tls_required: true,
            // A server sends one of the two.
            tls_available: false,
            tls_verify: true,
            jetstream: true,
            headers: true,
            ldm: true,
            // The largest number of sidecars in a chain.
            sidecars: ["1a2b3c4d"; 9].join("-"),
            moves: true,
        }
    }

    #[test]
    fn s7_a_short_line_has_less_than_512_bytes_whatever_the_node_sent() {
        let info = oversized();
        let line = info.short_line();
        assert!(line.len() <= INFO_LINE_BYTES_MAX, "{} bytes", line.len());
        assert!(line.contains(&info.nonce));
        assert!(line.ends_with("\r\n"));
        let long_nonce = Info {
            nonce: "n".repeat(4000),
            ..info
        };
        assert!(long_nonce.short_line().len() <= INFO_LINE_BYTES_MAX);
    }

    #[test]
    fn s7_fields_that_a_client_library_requires_are_never_removed() {
        let first = Info {
            client_id: 1,
            ..Info::default()
        };
        for info in [first, oversized()] {
            for line in [info.line(), info.brief_line(), info.short_line()] {
                let json = line.strip_prefix("INFO ").unwrap();
                let fields: serde_json::Value = serde_json::from_str(json).unwrap();
                for name in ["server_id", "version", "go", "git_commit", "host"] {
                    assert!(fields[name].is_string(), "{name} in {line}");
                }
                for name in ["proto", "port", "max_payload", "client_id"] {
                    assert!(fields[name].is_i64() || fields[name].is_u64(), "{name} in {line}");
                }
                assert!(fields["headers"].is_boolean(), "{line}");
            }
        }
    }

    #[test]
    fn flags_that_are_off_are_in_the_line_if_they_fit() {
        let mut info = Info::default();
        let has_false = |line: &str, name: &str| line.contains(&format!("\"{name}\":false"));
        for name in ["auth_required", "tls_required"] {
            assert!(has_false(&info.short_line(), name));
            assert!(!has_false(&info.brief_line(), name));
        }
        info.auth_required = true;
        assert!(!has_false(&info.line(), "auth_required") && has_false(&info.line(), "tls_required"));
        info.server_name = "n".repeat(INFO_LINE_BYTES_MAX - info.line().len());
        assert_eq!(info.short_line().len(), INFO_LINE_BYTES_MAX);
        info.server_name.push('n');
        assert!(!has_false(&info.short_line(), "tls_required"));
        assert!(info.short_line().contains(&info.server_name));
    }

    #[test]
    fn names_contain_nothing_that_breaks_a_hand_written_parser() {
        let info = Info {
            server_name: "a[1] {b}:\"c\",\\é\u{1f980}'".into(),
            cluster: "east wing\t".into(),
            version: "2.10.0-beta.1+x".into(),
            go: String::new(),
            nonce: "a:b".into(),
            ..Info::default()
        }
        .with_safe_names();
        assert_eq!(info.server_name, "a_1___b___c______");
        assert_eq!(info.cluster, "east_wing_");
        assert_eq!(info.version, "2.10.0-beta.1+x");
        assert_eq!(
            (&*info.go, &*info.git_commit, &*info.nonce),
            (UNKNOWN, UNKNOWN, "a:b")
        );
    }
}
