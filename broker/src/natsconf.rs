//! Settings files in the format of `nats-server`, so that a start script with `-c nats.conf` continues to work.
//! <https://docs.nats.io/running-a-nats-service/configuration>
//!
//! | file | holds |
//! |---|---|
//! | `parser`, `words` | the syntax, as `nats-server` parses it |
//! | `node` | the parsed keys and values |
//! | `keys` | the keys at the top level, each converted to a key of this server's settings |
//! | `users`, `cluster`, `tls` | the blocks `authorization`, `cluster` and `tls` |
//!
//! A key of a feature that this server does not support is an error, because a server without a requested feature, such as JetStream, must not
//! start. All errors of a file are reported at once.

mod cluster;
mod keys;
mod node;
mod parser;
mod tls;
mod users;
mod words;

use standin_daemon::settings::{Document, SettingsError};

use self::keys::Keys;
use self::parser::{FaultKind, Text};

/// Converts `text` to keys of this server's settings. Error messages show `name` as the name of the file. The errors in the
/// [`Document`] are those that the parser found, and one for each unknown key, each key of an unsupported feature, and each value of the
/// wrong type. Range and syntax of each value are checked later, with the other settings.
pub(crate) fn read(name: &str, text: &str) -> Document {
    let Text { entries, faults } = parser::read(name, text);
    let mut keys = Keys::default();
    keys.top(entries);
    Document {
        sections: Vec::new(),
        items: keys.items,
        warnings: keys.warnings,
        is_well_formed: faults.iter().all(|fault| fault.kind == FaultKind::Missing),
        is_complete: faults.is_empty() && !keys.has_type_error,
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
