//! The JSON argument of INFO: what a server says of itself.

use serde::{Deserialize, Serialize};

use crate::limits::{INFO_LINE_BYTES_MAX, PAYLOAD_BYTES_DEFAULT};

/// The fields of INFO. Missing ones are empty, off or zero; unknown ones are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Identity of this run of the server.
    pub server_id: String,
    /// Name of the server.
    pub server_name: String,
    /// Version of the server.
    pub version: String,
    /// 1: sends INFO at any time to clients that said `protocol: 1`.
    pub proto: u32,
    /// Address for clients.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// HPUB and HMSG are understood.
    pub headers: bool,
    /// CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// The connection goes on in TLS.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// The client must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Largest payload, in bytes; negative: no limit.
    pub max_payload: i64,
    /// JetStream is there.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// The server's number for this connection.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The client's address as the server sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// Name of the cluster that the server belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// To be signed by clients that prove themselves by a key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Addresses of the cluster's nodes, `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// Lame duck: the server is about to go.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
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
            host: String::new(),
            port: 0,
            headers: false,
            auth_required: false,
            tls_required: false,
            tls_verify: false,
            max_payload: PAYLOAD_BYTES_DEFAULT as i64,
            jetstream: false,
            client_id: 0,
            client_ip: String::new(),
            cluster: String::new(),
            nonce: String::new(),
            connect_urls: Vec::new(),
            ldm: false,
        }
    }
}

impl Info {
    /// Reads the argument of INFO.
    ///
    /// # Errors
    /// What `serde_json` says when it is no JSON object, or a field has the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        crate::json::object(json)
    }

    /// The whole line, `INFO {json}\r\n`.
    #[must_use]
    pub fn line(&self) -> String {
        // A struct of strings, numbers and flags always serializes.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("INFO {json} \r\n")
    }

    /// The whole line in at most [`INFO_LINE_BYTES_MAX`] bytes: what old clients need least goes first, then the names
    /// are cut. The nonce is whole or, if it alone is too long, not there: a cut one would be signed in vain.
    #[must_use]
    pub fn short_line(&self) -> String {
        let mut short = self.clone();
        let trims: [fn(&mut Self); 11] = [
            |info| info.cluster.clear(),
            |info| info.connect_urls.clear(),
            |info| info.client_ip.clear(),
            |info| info.server_name.clear(),
            |info| shorten(&mut info.version, 32),
            |info| shorten(&mut info.server_id, 64),
            |info| shorten(&mut info.host, 128),
            // Characters that JSON escapes take up to six times their length.
            |info| shorten(&mut info.server_id, 8),
            |info| info.version.clear(),
            |info| info.host.clear(),
            |info| info.nonce.clear(),
        ];
        let mut line = short.line();
        for trim in trims {
            if line.len() <= INFO_LINE_BYTES_MAX {
                break;
            }
            trim(&mut short);
            line = short.line();
        }
        line
    }
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
    fn what_servers_send_is_read() {
        let info =
            Info::parse(br#"{"server_id":"x","max_payload":1048576,"unknown":{"a":1},"ldm":true}"#).unwrap();
        assert!(info.ldm && info.server_id == "x" && info.max_payload == 1_048_576);
        assert_eq!(Info::parse(b"{}").unwrap().max_payload, 1_048_576);
        let unlimited = Info::parse(br#"{"max_payload":-1}"#).unwrap();
        assert_eq!(unlimited.max_payload, -1);
        assert!(Info::parse(b"[").is_err());
    }

    #[test]
    fn the_line_reads_back() {
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

    #[test]
    fn s7_a_short_line_stays_under_512_bytes_whatever_the_node_sent() {
        let long = "é".repeat(4000);
        let info = Info {
            server_id: long.clone(),
            server_name: long.clone(),
            version: long.clone(),
            host: long.clone(),
            client_ip: long,
            nonce: "n".repeat(22),
            max_payload: i64::MIN,
            client_id: u64::MAX,
            cluster: "c".repeat(300),
            connect_urls: vec!["10.0.0.1:4222".into(); 100],
            auth_required: true,
            tls_required: true,
            tls_verify: true,
            jetstream: true,
            headers: true,
            ldm: true,
            ..Info::default()
        };
        let line = info.short_line();
        assert!(line.len() <= INFO_LINE_BYTES_MAX, "{} bytes", line.len());
        assert!(line.contains(&info.nonce));
        assert!(line.ends_with("\r\n"));
    }
}
