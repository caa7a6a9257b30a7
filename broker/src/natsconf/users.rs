//! The blocks `authorization`, at the top level and in `cluster`.

use std::time::Duration;

use toml::{Table, Value};

use super::keys::{Keys, as_text};
use super::node::{Entry, Node};
use crate::unsupported::Unsupported;

impl Keys {
    /// Converts the block `authorization` at the top level.
    pub(super) fn authorization(&mut self, entry: Entry) {
        self.keys_of(entry, "authorization.", |keys, entry| {
            match entry.key.to_lowercase().as_str() {
                "user" | "username" => keys.text(&entry, "authorization.user"),
                "pass" | "password" => keys.text(&entry, "authorization.password"),
                "token" => keys.text(&entry, "authorization.token"),
                "timeout" => keys.time(&entry, "authorization.timeout_ms", Duration::as_millis),
                "users" => keys.users(&entry),
                "permissions" | "default_permission" | "default_permissions" => {
                    keys.unsupported(&entry, Unsupported::PERMISSIONS);
                }
                "auth_callout" => keys.unsupported(&entry, Unsupported::AUTH_CALLOUT),
                "proxy_required" => keys.unsupported(&entry, Unsupported::PROXY_PROTOCOL),
                _ => keys.unknown(&entry),
            }
        });
    }

    fn users(&mut self, entry: &Entry) {
        let allowed = "a list of { user: …, password: … }";
        let Node::List(list) = &entry.node else {
            return self.wrong(entry, allowed);
        };
        self.block = "authorization.users.";
        let (mut users, mut places) = (Vec::new(), Vec::new());
        let (mut nkeys, mut nkey_places) = (Vec::new(), Vec::new());
        for (place, node) in list {
            let Node::Map(fields) = node else {
                let what = "an entry of authorization.users must be { user: …, password: … }";
                self.add(place, what.to_owned());
                self.has_type_error = true;
                continue;
            };
            // As in nats-server, a missing password is an empty one.
            let mut user = Table::from_iter([("password".to_owned(), Value::String(String::new()))]);
            let is_name =
                |field: &Entry| matches!(field.key.to_lowercase().as_str(), "user" | "username" | "nkey");
            fields.iter().for_each(|field| self.user(field, &mut user));
            if let Some(key) = user.remove("nkey") {
                nkeys.push(key);
                nkey_places.push(place.clone());
            }
            if !fields.iter().any(is_name) {
                self.add(place, "an entry of authorization.users has no user".to_owned());
            }
            if user.contains_key("user") {
                users.push(Value::Table(user));
                places.push(place.clone());
            }
        }
        self.block = "authorization.";
        self.put_list(entry, "authorization.users", users, places);
        if !nkeys.is_empty() {
            self.put_list(entry, "authorization.nkeys", nkeys, nkey_places);
        }
    }

    fn user(&mut self, field: &Entry, user: &mut Table) {
        let key = match field.key.to_lowercase().as_str() {
            "user" | "username" => "user",
            "pass" | "password" => "password",
            "nkey" => "nkey",
            "permission" | "permissions" | "authorization" => {
                return self.unsupported(field, Unsupported::PERMISSIONS);
            }
            "proxy_required" => return self.unsupported(field, Unsupported::PROXY_PROTOCOL),
            "allowed_connection_types" | "connection_types" | "clients" => {
                return self.connection_types(field);
            }
            _ => return self.unknown(field),
        };
        match as_text(&field.node) {
            Some(text) => _ = user.insert(key.to_owned(), Value::String(text.to_owned())),
            None => self.wrong(field, "a string"),
        }
    }

    /// Refuses a user that may not connect over plain TCP.
    fn connection_types(&mut self, field: &Entry) {
        let types = match &field.node {
            Node::List(list) => list.iter().map(|(_, node)| node).collect(),
            node => vec![node],
        };
        let is_standard =
            |node: &&Node| as_text(node).is_some_and(|kind| kind.eq_ignore_ascii_case("standard"));
        if !types.is_empty() && !types.iter().any(is_standard) {
            self.unsupported(field, Unsupported::CONNECTION_TYPES);
        }
    }

    /// Converts the block `authorization` in `cluster`.
    pub(super) fn cluster_authorization(&mut self, entry: Entry) {
        self.keys_of(entry, "cluster.authorization.", |keys, entry| {
            match entry.key.to_lowercase().as_str() {
                "user" | "username" => keys.text(&entry, "cluster.user"),
                "pass" | "password" => keys.text(&entry, "cluster.password"),
                // No effect: the timeout of the handshake is cluster.connect_timeout_ms.
                "timeout" => {}
                "permissions" | "default_permission" | "default_permissions" => {
                    keys.unsupported(&entry, Unsupported::PERMISSIONS);
                }
                "token" | "users" => {
                    let what = "routes have one user and one password, as in nats-server";
                    let rule = format!("{}{}: {what}", keys.block, entry.key);
                    keys.add(&entry.place, rule);
                }
                _ => keys.unknown(&entry),
            }
        });
    }
}
