//! `nats-server`'s own format of settings files, for the keys that this server has too: so that a start script with
//! `-c nats.conf` goes on working. <https://docs.nats.io/running-a-nats-service/configuration>
//!
//! | file | holds |
//! |---|---|
//! | `parser`, `words` | the syntax, as `nats-server` parses it |
//! | `keys` | the keys at the top, and what each is here |
//! | `users`, `cluster` | the blocks `authorization` and `cluster` |
//!
//! A key for a feature that this server does not have is an error: to serve half of what a file asks for would be worse. All errors of a
//! file are reported at once.

mod cluster;
mod keys;
mod node;
mod parser;
mod users;
mod words;

use standin_daemon::settings::{Document, SettingsError};

use self::keys::Keys;
use self::parser::{FaultKind, Text};
pub(crate) use self::words::is_hash;

/// Reads `text`, which is shown as `name` in errors, as keys of this server's settings. Errors are what has not the syntax of the format, and
/// keys that have no counterpart here. Whether a value is in its range and of its form is checked with the other settings.
pub(crate) fn read(name: &str, text: &str) -> Document {
    let Text { entries, faults } = parser::read(name, text);
    let mut keys = Keys::default();
    keys.top(entries);
    Document {
        sections: Vec::new(),
        items: keys.items,
        warnings: keys.warnings,
        is_well_formed: faults.iter().all(|fault| fault.kind == FaultKind::Missing),
        is_complete: faults.is_empty() && !keys.is_one_wrong,
        errors: {
            let faults = faults.into_iter().map(|fault| SettingsError::Conflict {
                place: fault.place,
                rule: fault.what,
            });
            faults.chain(keys.errors).collect()
        },
    }
}

#[cfg(test)]
mod tests;
