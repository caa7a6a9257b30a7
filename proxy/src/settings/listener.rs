//! `[[listener]]`: the settings of one listener, with the checks of its table.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use standin_daemon::settings::{Place, Schema, SettingsError, host_and_port, section, without_value};
use standin_daemon::unix_socket;
use standin_wire::permissions::RuleError;
use standin_wire::{Permissions, Rules};
use toml::{Table, Value};

use super::{ComponentTlsSection, CredentialsSection};

/// `[[listener]]`. `deploy/proxy.toml` describes the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSection {
    pub listen: Vec<String>,
    pub socket_mode: String,
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub proxy_protocol_from: Vec<String>,
    pub publish: RulesSection,
    pub subscribe: RulesSection,
    pub credentials: CredentialsSection,
    pub tls: ComponentTlsSection,
}

/// Subjects that components may use. Without `allow`, every subject that is not in `deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesSection {
    pub allow: Option<Vec<String>>,
    pub deny: Vec<String>,
}

impl Default for ListenerSection {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            socket_mode: "0660".to_owned(),
            uids: Vec::new(),
            gids: Vec::new(),
            proxy_protocol_from: Vec::new(),
            publish: RulesSection::default(),
            subscribe: RulesSection::default(),
            credentials: CredentialsSection::default(),
            tls: ComponentTlsSection::default(),
        }
    }
}

impl ListenerSection {
    /// Returns the permissions of components; `None` if they may do everything.
    ///
    /// # Errors
    /// [`RuleError`] for an entry that is not valid.
    pub(crate) fn permissions(&self) -> Result<Option<Permissions>, RuleError> {
        let (publish, subscribe) = (&self.publish, &self.subscribe);
        let permissions = Permissions {
            publish: Rules::for_publish(publish.allow.as_deref(), &publish.deny)?,
            subscribe: Rules::for_subscribe(subscribe.allow.as_deref(), &subscribe.deny)?,
        };
        let allow_all = permissions.publish.allow_all() && permissions.subscribe.allow_all();
        Ok(Some(permissions).filter(|_| !allow_all))
    }

    /// Returns the permission bits of the socket file; `None` if the text is not an octal number.
    pub(crate) fn mode(&self) -> Option<u32> {
        let mode = u32::from_str_radix(&self.socket_mode, 8).ok();
        mode.filter(|mode| *mode <= 0o777)
    }

    /// Returns the networks of the load balancers. Entries that are not valid are left out: the settings were checked before.
    pub(crate) fn balancers(&self) -> impl Iterator<Item = IpNet> {
        self.proxy_protocol_from.iter().filter_map(|text| network(text))
    }

    fn has_any_address_of(&self, other: &Self) -> bool {
        other.listen.iter().any(|address| self.listen.contains(address))
    }

    fn has_all_addresses_of(&self, other: &Self) -> bool {
        other.listen.iter().all(|address| self.listen.contains(address))
    }

    /// Returns `new` with the open sockets of this listener, and adds to `left` the changes of the sockets, which need a restart.
    fn changed_to(&self, new: &Self, left: &mut Vec<String>) -> Self {
        let mut changed = |key: &str, from: &dyn fmt::Debug, to: &dyn fmt::Debug| {
            left.push(format!("{}: {key}: {from:?} -> {to:?}", self.name()));
        };
        if !self.has_all_addresses_of(new) {
            changed("listen", &self.listen, &new.listen);
        }
        if self.socket_mode != new.socket_mode {
            changed("socket_mode", &self.socket_mode, &new.socket_mode);
        }
        Self {
            listen: self.listen.clone(),
            socket_mode: self.socket_mode.clone(),
            ..new.clone()
        }
    }

    /// Returns the name of the listener for the log.
    fn name(&self) -> String {
        format!("listener {}", self.first_address())
    }

    /// Returns the address that tells listeners apart in logs and metrics.
    pub(super) fn first_address(&self) -> &str {
        self.listen.first().map_or("", String::as_str)
    }

    /// Returns the rules that are broken between the keys.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.listen.is_empty() {
            faults.push(format!("listen must have at least one address: {ADDRESS}"));
        }
        let bad = self.listen.iter().filter(|text| !is_address(text));
        faults.extend(bad.map(|text| format!("listen must be {ADDRESS}, not {text:?}")));
        if self.mode().is_none() {
            let mode = &self.socket_mode;
            faults.push(format!(
                "socket_mode must be an octal number such as \"0660\", not {mode:?}"
            ));
        }
        let has_tcp = || {
            self.listen
                .iter()
                .any(|text| unix_socket::path_of(text).is_none())
        };
        if !(self.uids.is_empty() && self.gids.is_empty()) && has_tcp() {
            faults.push(
                "uids and gids are known of peers on Unix sockets only: move the other addresses to another listener".to_owned(),
            );
        }
        let bad = self.proxy_protocol_from.iter();
        let bad = bad.filter(|text| network(text).is_none());
        faults.extend(bad.map(|text| {
            format!("proxy_protocol_from must have networks (10.0.0.0/8) or addresses, not {text:?}")
        }));
        let has_unix = || {
            self.listen
                .iter()
                .any(|text| unix_socket::path_of(text).is_some())
        };
        if !self.proxy_protocol_from.is_empty() && has_unix() {
            faults.push(
                "proxy_protocol_from is for TCP only: move the Unix sockets to another listener".to_owned(),
            );
        }
        faults.extend(self.permissions().err().map(|error| error.to_string()));
        faults
    }
}

/// Returns the listeners in force after a reload, in the order of `old`, and the changes that need a restart. The sockets stay as
/// they are. All other settings of a listener are those of the new listener that has all its addresses. Without such a listener it
/// keeps its settings: a socket that the operator has closed must not get rights that were meant for another one.
pub(crate) fn reloaded(
    old: &[ListenerSection],
    new: &[ListenerSection],
) -> (Vec<ListenerSection>, Vec<String>) {
    let mut left = Vec::new();
    let mut in_force = Vec::new();
    for open in old {
        if let Some(new) = new.iter().find(|new| new.has_all_addresses_of(open)) {
            in_force.push(open.changed_to(new, &mut left));
            continue;
        }
        in_force.push(open.clone());
        let is_there = new.iter().any(|new| new.has_any_address_of(open));
        left.push(if is_there {
            format!(
                "{} loses an address: none of its changes is in force",
                open.name()
            )
        } else {
            format!("{} is removed", open.name())
        });
    }
    let is_added = |new: &&ListenerSection| !old.iter().any(|open| open.has_any_address_of(new));
    left.extend(
        new.iter()
            .filter(is_added)
            .map(|new| format!("{} is new", new.name())),
    );
    (in_force, left)
}

/// Form of an address on which the sidecar listens, for errors.
pub(super) const ADDRESS: &str =
    "host:port, such as \"127.0.0.1:4222\", or \"unix:/path\" of at most 107 bytes";

/// Returns the network that `text` names; a single address is a network with one address.
fn network(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>();
    address.map(IpNet::from).or_else(|_| text.parse()).ok()
}

/// Returns whether the sidecar can listen on `text`.
pub(super) fn is_address(text: &str) -> bool {
    host_and_port(text) || unix_socket::path_of(text).is_some_and(unix_socket::is_valid)
}

/// Checks one table of `[[listener]]`.
pub(super) fn check(schema: &Schema, place: &Place, table: &Table) -> Result<(), SettingsError> {
    let conflict = |fault: String| SettingsError::Conflict {
        place: place.clone(),
        rule: format!("listener: {fault}"),
    };
    let inner = [("credentials", "credentials"), ("tls", "tls.component")];
    let inner = inner.into_iter().filter_map(|(key, name)| match table.get(key)? {
        Value::Table(table) => section(schema, name, &format!("listener.{key}"), place, table).err(),
        // The value may be a secret.
        _ => Some(conflict(format!(
            "{key} must be a table with the keys of [{name}]"
        ))),
    });
    SettingsError::all(inner)?;
    let listener = ListenerSection::deserialize(table.clone())
        .map_err(|error| conflict(without_value(error.message()).replace('\n', ", ")))?;
    SettingsError::all(listener.faults().into_iter().map(conflict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(listen: &[&str], denied: &str) -> ListenerSection {
        ListenerSection {
            listen: listen.iter().map(|&address| address.to_owned()).collect(),
            publish: RulesSection {
                deny: vec![denied.to_owned()],
                ..RulesSection::default()
            },
            ..ListenerSection::default()
        }
    }

    #[test]
    fn a_reload_applies_all_but_the_sockets() {
        let old = [listener(&["h:1"], "old"), listener(&["h:2", "h:3"], "old")];
        let private = |listener| ListenerSection {
            socket_mode: "0600".to_owned(),
            ..listener
        };
        for (new, denied, left) in [
            (
                vec![
                    listener(&["h:9"], "n"),
                    listener(&["h:1"], "n"),
                    listener(&["h:3", "h:2"], "m"),
                ],
                ["n", "m"],
                vec!["listener h:9 is new"],
            ),
            (
                vec![private(listener(&["h:1", "h:4"], "n")), listener(&["h:3"], "m")],
                ["n", "old"],
                vec![
                    "listener h:1: listen: [\"h:1\"] -> [\"h:1\", \"h:4\"]",
                    "listener h:1: socket_mode: \"0660\" -> \"0600\"",
                    "listener h:2 loses an address: none of its changes is in force",
                ],
            ),
            (
                vec![listener(&["h:3", "h:2"], "m")],
                ["old", "m"],
                vec!["listener h:1 is removed"],
            ),
        ] {
            let (in_force, seen) = reloaded(&old, &new);
            let seen_denied: Vec<_> = in_force
                .iter()
                .map(|listener| &*listener.publish.deny[0])
                .collect();
            assert_eq!(
                (seen_denied, seen),
                (denied.to_vec(), left.iter().map(ToString::to_string).collect())
            );
            for (open, listener) in old.iter().zip(&in_force) {
                assert_eq!(
                    (&open.listen, &open.socket_mode),
                    (&listener.listen, &listener.socket_mode)
                );
            }
        }
    }
}
