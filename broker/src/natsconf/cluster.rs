//! The block `cluster`.

use std::time::Duration;

use toml::Value;

use super::keys::{Keys, Listen, as_text, host_and_port};
use super::node::{Entry, Node};
use super::remark::Remark;
use super::tls::Door;
use crate::unsupported::Unsupported;

impl Keys {
    /// Converts the block `cluster`.
    pub(super) fn cluster(&mut self, entry: Entry) {
        self.keys_of(entry, "cluster.", Self::cluster_key);
        let listen = std::mem::take(&mut self.cluster_listen);
        let Some(place) = listen.place.filter(|_| listen.port != 0) else {
            // As in nats-server, a server without a cluster port is not clustered and dials no routes.
            let routes = self.items.extract_if(.., |item| item.key == "cluster.routes");
            let why = "the block has no port, so the server is not clustered";
            let idle =
                routes.map(|item| Remark::new(&item.place, format!("{} has no effect: {why}", item.name)));
            self.warnings.extend(idle);
            return;
        };
        let text = match listen.host.as_str() {
            host if host.contains(':') => format!("[{host}]:{}", listen.port),
            host => format!("{host}:{}", listen.port),
        };
        // Errors name `cluster.listen`, even if the address is from `host` and `port`.
        self.block = "cluster.";
        self.put(&place, "listen", "cluster.listen", Value::String(text));
        self.block = "";
    }

    fn cluster_key(&mut self, entry: Entry) {
        match entry.key.to_lowercase().as_str() {
            "name" => self.text(&entry, "cluster.name"),
            "advertise" | "cluster_advertise" => self.text(&entry, "cluster.advertise"),
            "no_advertise" => {
                let flag = Value::Boolean(self.switch(&entry));
                self.put(&entry.place, &entry.key, "cluster.no_advertise", flag);
            }
            "listen" => match host_and_port(&entry.node) {
                Some((host, port)) => {
                    let place = Some(entry.place);
                    self.cluster_listen = Listen { place, host, port };
                }
                None => self.wrong(&entry, "host:port, or a port"),
            },
            "port" => match entry.node {
                Node::Integer(port, _) => {
                    self.cluster_listen.place = Some(entry.place);
                    self.cluster_listen.port = port;
                }
                _ => self.wrong(&entry, "a whole number"),
            },
            "host" | "net" => match as_text(&entry.node) {
                Some(host) => host.clone_into(&mut self.cluster_listen.host),
                None => self.wrong(&entry, "a string"),
            },
            "routes" => self.routes(&entry),
            "ping_interval" => self.time(&entry, "cluster.ping_interval_ms", Duration::as_millis),
            "authorization" => self.cluster_authorization(entry),
            "tls" => self.tls(entry, Door::Route),
            "permissions" => self.route_permissions(&entry),
            "accounts" => self.unsupported(&entry, Unsupported::ROUTE_ACCOUNTS),
            "pool_size" | "connect_retries" | "connect_backoff" | "compression" | "ping_max"
            | "write_deadline" | "write_timeout" => {
                self.ignore(
                    &entry,
                    "there is one uncompressed route to each node, with limits of its own",
                );
            }
            _ => self.unknown(&entry),
        }
    }

    /// Sets the permissions of the routes.
    pub(super) fn route_permissions(&mut self, entry: &Entry) {
        if let Some(table) = self.permissions(entry) {
            self.put(
                &entry.place,
                &entry.key,
                "cluster.permissions",
                Value::Table(table),
            );
        }
    }

    fn routes(&mut self, entry: &Entry) {
        let allowed = "a list of nats://host:port";
        let Node::List(list) = &entry.node else {
            return self.wrong(entry, allowed);
        };
        let (mut routes, mut item_places) = (Vec::new(), Vec::new());
        for (place, node) in list {
            let Some(text) = as_text(node).map(str::trim) else {
                self.wrong(entry, allowed);
                continue;
            };
            if !routes.iter().any(|route: &Value| route.as_str() == Some(text)) {
                routes.push(Value::String(text.to_owned()));
                item_places.push(place.clone());
            }
        }
        self.put_list(entry, "cluster.routes", routes, item_places);
    }
}
