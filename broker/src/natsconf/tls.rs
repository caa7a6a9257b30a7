//! The block `tls` of clients and of the cluster.

use std::time::Duration;

use toml::Value;

use super::keys::{Keys, is_off};
use super::node::{Entry, Node};
use crate::unsupported::Unsupported;

/// The door that a block `tls` is about.
#[derive(Clone, Copy)]
pub(super) enum Door {
    Client,
    Route,
}

impl Door {
    /// Returns a key of the door's section in this server's settings.
    fn key(self, key: &str) -> String {
        let section = match self {
            Self::Client => "tls.client",
            Self::Route => "tls.route",
        };
        format!("{section}.{key}")
    }
}

impl Keys {
    /// Converts a block `tls`, which switches TLS on. An empty block is refused later, because it has no certificate.
    pub(super) fn tls(&mut self, entry: Entry, door: Door) {
        if is_off(&entry.node) && !matches!(entry.node, Node::Map(_)) {
            return;
        }
        let place = entry.place.clone();
        match door {
            Door::Client => {
                self.keys_of(entry, "tls.", |keys, entry| keys.tls_key(&entry, Door::Client));
                self.client_tls = Some(place);
            }
            Door::Route => {
                self.keys_of(entry, "cluster.tls.", |keys, entry| {
                    keys.tls_key(&entry, Door::Route)
                });
                self.put(
                    &place,
                    "tls",
                    &door.key("mode"),
                    Value::String("required".to_owned()),
                );
            }
        }
    }

    /// Sets the mode of TLS for clients, once all keys of the file are known.
    pub(super) fn client_tls_mode(&mut self) {
        if let Some(place) = self.client_tls.take() {
            let mode = if self.allows_plain { "optional" } else { "required" };
            self.put(
                &place,
                "tls",
                &Door::Client.key("mode"),
                Value::String(mode.to_owned()),
            );
        }
    }

    fn tls_key(&mut self, entry: &Entry, door: Door) {
        let flag = |keys: &mut Self, key: &str, flag: bool| {
            keys.put(&entry.place, &entry.key, &door.key(key), Value::Boolean(flag));
        };
        match entry.key.to_lowercase().as_str() {
            "cert_file" => self.text(entry, &door.key("cert_file")),
            "key_file" => self.text(entry, &door.key("key_file")),
            "ca_file" => self.text(entry, &door.key("ca_file")),
            "verify" => {
                let verify = self.switch(entry);
                flag(self, "verify", verify);
            }
            "insecure" if matches!(door, Door::Client) => {
                if self.switch(entry) {
                    self.ignore(
                        entry,
                        "clients are not dialled, so there is nothing to leave unchecked",
                    );
                }
            }
            // For routes, `insecure` means that the certificates of the nodes that this node dials are not checked.
            "insecure" => {
                let insecure = self.switch(entry);
                flag(self, "verify", !insecure);
            }
            "handshake_first" | "first" | "immediate" if matches!(door, Door::Client) => {
                let first = match &entry.node {
                    Node::Text(text) if text == "auto" => "auto",
                    Node::Text(text) if text.ends_with("ms") => {
                        self.ignore(
                            entry,
                            "a client always has 50 ms to begin TLS before it gets INFO",
                        );
                        "auto"
                    }
                    _ if self.switch(entry) => "yes",
                    _ => "no",
                };
                let first = Value::String(first.to_owned());
                self.put(&entry.place, &entry.key, &door.key("handshake_first"), first);
            }
            "min_version" => self.text(entry, &door.key("min_version")),
            "timeout" => self.time(entry, &door.key("timeout_ms"), Duration::as_millis),
            "verify_and_map" if matches!(door, Door::Client) => {
                let maps = self.switch(entry);
                let verifies = Value::Boolean(maps);
                self.put(
                    &entry.place,
                    &entry.key,
                    &door.key("verify_and_map"),
                    verifies.clone(),
                );
                if maps {
                    self.put(&entry.place, &entry.key, &door.key("verify"), verifies);
                }
            }
            "cipher_suites"
            | "curve_preferences"
            | "certs"
            | "cert_store"
            | "cert_match"
            | "cert_match_by"
            | "ca_certs_match"
            | "ocsp_peer"
            | "verify_cert_and_check_known_urls" => self.unsupported(entry, Unsupported::TLS_CHOICES),
            "pinned_certs" => self.unsupported(entry, Unsupported::PINNED_CERTIFICATES),
            "connection_rate_limit" => self.unsupported(entry, Unsupported::HANDSHAKE_RATE),
            "allow_insecure_cipher_suites" | "cert_match_skip_invalid" => {
                self.ignore(entry, "rustls has no insecure ciphers and no stored certificates");
            }
            _ => self.unknown(entry),
        }
    }
}
