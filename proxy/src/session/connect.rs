//! CONNECT: kept as the component sent it, and adapted to each node.
//!
//! Promise S11: the component's credentials are passed on and replayed to each next node. If the component has none,
//! the sidecar's are sent.

use std::borrow::Cow;
use std::time::Instant;

use serde_json::Value;
use standin_registry::Node;
use standin_wire::client::Frame;
use standin_wire::{Connect, connect, encode};

use super::Session;
use super::component::{Client, ClientLabel};
use super::event::SessionEvent;
use crate::ledger::Expected;

impl Session {
    /// Returns CONNECT as it is sent to nodes: with `protocol` at least 1, so that they announce their shutdown, and
    /// with the sidecar's credentials if the component has none.
    pub(super) fn connect_line(&self, json: &[u8]) -> Vec<u8> {
        let nonce = self.connection.as_ref().and_then(|node| node.nonce.as_deref());
        self.connect_line_for(json, self.node.as_deref(), nonce.map_or("", |nonce| &nonce.0))
    }

    /// Returns CONNECT as it is sent to `node`, which wants `nonce` to be signed.
    pub(super) fn connect_line_for(&self, json: &[u8], node: Option<&Node>, nonce: &str) -> Vec<u8> {
        let fields = || -> Result<String, serde_json::Error> {
            let client = Connect::parse(json)?;
            let mut fields = vec![("protocol", Value::from(client.protocol.max(1)))];
            if let Some(own) = self.own_credentials(&client) {
                fields.extend(own.fields(nonce));
            } else if let Some(own) = self.credentials_for(node).filter(|_| !client.has_credentials()) {
                let given = [
                    ("user", &own.user),
                    ("pass", &own.password),
                    ("auth_token", &own.token),
                ];
                let given = given.into_iter();
                fields.extend(given.filter_map(|(name, value)| Some((name, value.clone()?.into()))));
            }
            connect::with_fields(json, fields)
        };
        // The argument is valid here: `plan_alone` refuses an invalid one.
        let line = fields().map_or_else(|_| json.to_vec(), String::into_bytes);
        let mut out = Vec::new();
        encode::client(&Frame::Connect(&line), &mut out);
        out
    }

    /// Merges a second CONNECT into the first, as servers do. An invalid argument stays unchanged.
    pub(super) fn merged<'j>(&self, json: &'j [u8]) -> Cow<'j, [u8]> {
        let merge = |first: &Client| connect::merged(first.json.as_bytes(), json).ok();
        let merged = self.client.as_deref().and_then(merge);
        merged.map_or(Cow::Borrowed(json), |merged| Cow::Owned(merged.into_bytes()))
    }

    /// Records that CONNECT was sent to the node as `line`, in place of the component's `frame`. `frame` is empty if the
    /// component began without CONNECT and the sidecar sent one for it.
    pub(super) fn connected(&mut self, line: &[u8], frame: &[u8], now: Instant) {
        let client = Connect::parse(argument(line)).unwrap_or_default();
        let sent_connect = !frame.is_empty();
        let sent = if sent_connect { argument(frame) } else { b"{}" };
        let merged = self.merged(sent);
        let before = self.client.take();
        let again = before.as_ref().is_some_and(|before| before.sent_connect);
        let first_ping = match &before {
            Some(before) if again => before.first_ping,
            _ => sent_connect.then(|| now + self.first_ping_wait()),
        };
        let has_same_credentials = |json: &str| {
            Connect::parse(json.as_bytes()).is_ok_and(|before| before.has_same_credentials(&client))
        };
        let same = |before: &Client| before.accepted && has_same_credentials(&before.json);
        let is_own = Connect::parse(&merged).is_ok_and(|sent| self.own_credentials(&sent).is_some());
        let is_held = is_own || self.credentials().is_some() && !client.has_credentials();
        self.connects += 1;
        self.client = Some(Box::new(Client {
            json: String::from_utf8_lossy(&merged).into(),
            verbose: client.verbose,
            echo: client.echo,
            headers: client.headers,
            accepts_info: Connect::parse(sent).is_ok_and(|sent| sent.protocol >= 1),
            signed: client.is_signed() && !is_own,
            accepted: before.as_deref().is_some_and(same),
            is_held,
            sent_connect,
            first_ping,
            label: ClientLabel {
                name: client.name,
                lang: client.lang,
                version: client.version,
            },
        }));
        let Some(node) = &mut self.connection else { return };
        node.verified = false;
        if client.verbose {
            let expected = if frame.is_empty() {
                Expected::DroppedOks(1)
            } else {
                Expected::Oks(1)
            };
            node.ledger.expect(expected);
        }
        if before.is_some() {
            // A second CONNECT ends all subscriptions (nats-server 2.15; older servers keep them until an UNSUB). If the
            // component began without CONNECT, the sidecar has sent one for it. Then the component's first CONNECT is
            // the second for the node, and the subscriptions that it ends there are created again.
            let mut lines = Vec::new();
            let commands = if again {
                node.last_slot = None;
                self.journal.end_all(&mut lines)
            } else {
                self.journal.replay(&mut lines)
            };
            node.own.extend_from_slice(&lines);
            if client.verbose {
                node.ledger.expect(Expected::DroppedOks(commands));
            }
        }
        node.own_ping();
        self.events.push(SessionEvent::Connected);
    }
}

/// Returns the argument after `CONNECT ` on `line`; empty if there is none.
fn argument(line: &[u8]) -> &[u8] {
    let rest = line.get(b"CONNECT".len()..).unwrap_or_default();
    standin_wire::line::trim(rest.strip_suffix(b"\n").unwrap_or(rest))
}
