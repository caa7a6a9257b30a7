//! `[[listener]]`: the settings of one listener, with the checks of its table.

use std::path::Path;

use serde::{Deserialize, Serialize};
use standin_daemon::settings::{Place, Schema, SettingsError, host_and_port, section};
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

    /// Returns whether the other listener has the same sockets. If so, a reload can change all the rest.
    pub(crate) fn has_sockets_of(&self, other: &Self) -> bool {
        self.listen == other.listen && self.socket_mode == other.socket_mode
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
        faults.extend(self.permissions().err().map(|error| error.to_string()));
        faults
    }
}

/// Form of an address on which the sidecar listens, for errors.
pub(super) const ADDRESS: &str = "host:port, such as \"127.0.0.1:4222\", or \"unix:/path\"";

/// Returns whether the sidecar can listen on `text`.
pub(super) fn is_address(text: &str) -> bool {
    host_and_port(text) || unix_socket::path_of(text).is_some_and(Path::is_absolute)
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
        .map_err(|error| conflict(error.message().replace('\n', ", ")))?;
    SettingsError::all(listener.faults().into_iter().map(conflict))
}
