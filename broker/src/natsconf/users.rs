//! The blocks `authorization`, at the top level and in `cluster`, and `accounts`.

use std::time::Duration;

use standin_daemon::settings::Place;
use toml::{Table, Value};

use super::keys::{Keys, as_text, duration, is_off};
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
                "users" => {
                    let (users, places) = keys.users(&entry);
                    keys.put_list(&entry, "authorization.users", users, places);
                }
                "permissions" | "default_permission" | "default_permissions" => {
                    if let Some(table) = keys.permissions(&entry) {
                        let key = "authorization.default_permissions";
                        keys.put(&entry.place, &entry.key, key, Value::Table(table));
                    }
                }
                "auth_callout" => keys.unsupported(&entry, Unsupported::AUTH_CALLOUT),
                "proxy_required" => keys.unsupported(&entry, Unsupported::PROXY_PROTOCOL),
                _ => keys.unknown(&entry),
            }
        });
    }

    /// Converts a list of users. Returns them with their places.
    fn users(&mut self, entry: &Entry) -> (Vec<Value>, Vec<Place>) {
        let Node::List(list) = &entry.node else {
            self.wrong(entry, "a list of { user: …, password: … }");
            return Default::default();
        };
        let outer = std::mem::replace(&mut self.block, "authorization.users.");
        let (mut users, mut places) = (Vec::new(), Vec::new());
        for (place, node) in list {
            let Node::Map(fields) = node else {
                let what = "an entry of users must be { user: …, password: … }";
                self.add(place, what.to_owned());
                self.has_type_error = true;
                continue;
            };
            let mut user = Table::new();
            fields.iter().for_each(|field| self.user(field, &mut user));
            let has_name = |key: &str| user.contains_key(key);
            if has_name("user") || has_name("nkey") {
                users.push(Value::Table(user));
                places.push(place.clone());
            } else if !self.has_type_error {
                self.add(place, "an entry of authorization.users has no user".to_owned());
            }
        }
        self.block = outer;
        (users, places)
    }

    fn user(&mut self, field: &Entry, user: &mut Table) {
        let key = match field.key.to_lowercase().as_str() {
            "user" | "username" => "user",
            "pass" | "password" => "password",
            "nkey" => "nkey",
            "permission" | "permissions" | "authorization" => {
                if let Some(table) = self.permissions(field) {
                    user.insert("permissions".to_owned(), Value::Table(table));
                }
                return;
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

    /// Converts a block of permissions, of a user or of a route.
    pub(super) fn permissions(&mut self, entry: &Entry) -> Option<Table> {
        let Node::Map(fields) = &entry.node else {
            self.wrong(entry, "a block: { publish: …, subscribe: … }");
            return None;
        };
        let mut table = Table::new();
        for field in fields {
            let key = match field.key.to_lowercase().as_str() {
                "pub" | "publish" | "import" => "publish",
                "sub" | "subscribe" | "export" => "subscribe",
                "allow_responses" | "allow_response" => {
                    if let Some(rule) = self.allow_responses(field) {
                        table.insert("allow_responses".to_owned(), Value::Table(rule));
                    }
                    continue;
                }
                _ => {
                    self.unknown(field);
                    continue;
                }
            };
            if let Some(lists) = self.subject_lists(field) {
                table.insert(key.to_owned(), Value::Table(lists));
            }
        }
        Some(table)
    }

    /// Converts the subjects of one direction: a subject, a list of subjects, or `{ allow: …, deny: … }`.
    fn subject_lists(&mut self, entry: &Entry) -> Option<Table> {
        let Node::Map(fields) = &entry.node else {
            let allow = self.subjects(entry)?;
            return Some(Table::from_iter([("allow".to_owned(), allow)]));
        };
        let mut lists = Table::new();
        for field in fields {
            match field.key.to_lowercase().as_str() {
                key @ ("allow" | "deny") => {
                    let subjects = self.subjects(field)?;
                    lists.insert(key.to_owned(), subjects);
                }
                _ => self.unknown(field),
            }
        }
        Some(lists)
    }

    fn subjects(&mut self, entry: &Entry) -> Option<Value> {
        let nodes: Vec<&Node> = match &entry.node {
            Node::List(list) => list.iter().map(|(_, node)| node).collect(),
            node => vec![node],
        };
        let texts: Option<Vec<Value>> = nodes
            .into_iter()
            .map(|node| as_text(node).map(|text| Value::String(text.to_owned())))
            .collect();
        if texts.is_none() {
            self.wrong(entry, "a subject or a list of subjects");
        }
        texts.map(Value::Array)
    }

    /// Converts `allow_responses`: true, or `{ max: …, expires: … }`. As in `nats-server`, 0 is the default, and less is no limit.
    fn allow_responses(&mut self, entry: &Entry) -> Option<Table> {
        let mut rule = Table::new();
        let fields = match &entry.node {
            Node::Bool(flag, _) => return flag.then_some(rule),
            Node::Map(fields) => fields,
            _ => {
                self.wrong(entry, "true, false or { max: …, expires: … }");
                return None;
            }
        };
        for field in fields {
            let (key, number) = match (field.key.to_lowercase().as_str(), &field.node) {
                ("max" | "max_msgs" | "max_messages" | "max_responses", Node::Integer(number, _)) => {
                    ("max", *number)
                }
                ("max" | "max_msgs" | "max_messages" | "max_responses", _) => {
                    self.wrong(field, "a whole number");
                    continue;
                }
                ("expires" | "expiration" | "ttl", node) => match (as_text(node), duration(node)) {
                    (Some(text), _) if text.starts_with('-') => ("expires_ms", -1),
                    (_, Some(time)) => ("expires_ms", time.as_millis() as i64),
                    _ => {
                        self.wrong(field, "a time, such as \"1m\"");
                        continue;
                    }
                },
                _ => {
                    self.unknown(field);
                    continue;
                }
            };
            if number != 0 {
                rule.insert(key.to_owned(), Value::Integer(number));
            }
        }
        Some(rule)
    }

    /// Converts the block `accounts`: names with blocks, or a list of names.
    pub(super) fn accounts(&mut self, entry: &Entry) {
        let (mut accounts, mut places) = (Vec::new(), Vec::new());
        match &entry.node {
            Node::Map(entries) => {
                for account in entries {
                    accounts.push(Value::Table(self.account(account)));
                    places.push(account.place.clone());
                }
            }
            Node::List(list) => {
                for (place, node) in list {
                    let Some(name) = as_text(node) else {
                        self.wrong(entry, "a list of names, or a block");
                        continue;
                    };
                    accounts.push(Value::Table(named(name)));
                    places.push(place.clone());
                }
            }
            _ => return self.wrong(entry, "a block: { NAME { users: […] } }"),
        }
        self.put_list(entry, "accounts", accounts, places);
    }

    fn account(&mut self, account: &Entry) -> Table {
        let mut table = named(&account.key);
        let Node::Map(fields) = &account.node else {
            self.wrong(account, "a block: { users: […] }");
            return table;
        };
        let outer = std::mem::replace(&mut self.block, "accounts.");
        for field in fields {
            match field.key.to_lowercase().as_str() {
                "users" => {
                    let (users, _) = self.users(field);
                    table.insert("users".to_owned(), Value::Array(users));
                }
                "default_permissions" | "default_permission" => {
                    if let Some(permissions) = self.permissions(field) {
                        table.insert("default_permissions".to_owned(), Value::Table(permissions));
                    }
                }
                "limits" => self.account_limits(field, &mut table),
                "jetstream" => self.unsupported(field, Unsupported::JETSTREAM),
                "imports" | "exports" => self.unsupported(field, Unsupported::IMPORTS),
                "mappings" | "maps" => self.unsupported(field, Unsupported::MAPPINGS),
                "nkey" | "trace_dest" | "msg_trace" if is_off(&field.node) => {}
                "nkey" => self.ignore(field, "accounts are known by their names"),
                "trace_dest" | "msg_trace" => self.unsupported(field, Unsupported::MESSAGE_TRACE),
                _ => self.unknown(field),
            }
        }
        self.block = outer;
        table
    }

    /// Converts the limits of an account. As in `nats-server`, a negative number is no limit.
    fn account_limits(&mut self, entry: &Entry, table: &mut Table) {
        let Node::Map(fields) = &entry.node else {
            return self.wrong(entry, "a block: { max_connections: …, … }");
        };
        for field in fields {
            let key = match field.key.to_lowercase().as_str() {
                "max_connections" | "max_conn" => "max_connections",
                "max_subscriptions" | "max_subs" => "max_subscriptions",
                "max_payload" | "max_pay" => "max_payload",
                "max_msgs_in_per_sec" => "max_msgs_in_per_sec",
                "max_bytes_in_per_sec" => "max_bytes_in_per_sec",
                "max_msgs_out_per_sec" => "max_msgs_out_per_sec",
                "max_bytes_out_per_sec" => "max_bytes_out_per_sec",
                "over_rate" => {
                    let text = as_text(&field.node).unwrap_or_default();
                    table.insert("over_rate".to_owned(), Value::String(text.to_owned()));
                    continue;
                }
                "max_leafnodes" | "max_leafs" => {
                    self.ignore(field, "there are no leaf nodes");
                    continue;
                }
                _ => {
                    self.unknown(field);
                    continue;
                }
            };
            match field.node {
                Node::Integer(number, _) => {
                    table.insert(key.to_owned(), Value::Integer(number.max(0)));
                }
                _ => self.wrong(field, "a whole number"),
            }
        }
    }

    /// Converts the block `authorization` in `cluster`.
    pub(super) fn cluster_authorization(&mut self, entry: Entry) {
        self.keys_of(entry, "cluster.authorization.", |keys, entry| {
            match entry.key.to_lowercase().as_str() {
                "user" | "username" => keys.text(&entry, "cluster.user"),
                "pass" | "password" => keys.text(&entry, "cluster.password"),
                "timeout" => keys.ignore(
                    &entry,
                    "the time limit of the handshake is cluster.connect_timeout_ms",
                ),
                "permissions" | "default_permission" | "default_permissions" => {
                    keys.route_permissions(&entry);
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

fn named(name: &str) -> Table {
    Table::from_iter([("name".to_owned(), Value::String(name.to_owned()))])
}
