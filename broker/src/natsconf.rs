//! Settings files in the format of `nats-server`, so that a start script with `-c nats.conf` continues to work.
//! <https://docs.nats.io/running-a-nats-service/configuration>
//!
//! | file | holds |
//! |---|---|
//! | `parser`, `words` | the syntax, as `nats-server` parses it |
//! | `node` | the parsed keys and values |
//! | `remark` | a remark about one key |
//! | `keys` | the keys at the top level, each converted to a key of this server's settings |
//! | `users`, `cluster`, `tls` | the blocks `authorization`, `cluster` and `tls` |
//!
//! A key of a feature that this server does not support is an error, because a server without a requested feature, such as JetStream, must not
//! start. All errors of a file are reported at once.

mod cluster;
mod keys;
mod node;
mod parser;
mod remark;
mod tls;
mod users;
mod words;

use standin_daemon::settings::{Document, Item, SettingsError};

use self::keys::Keys;
use self::parser::{FaultKind, Text};
pub(crate) use self::remark::Remark;

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
        warnings: keys.warnings.iter().map(ToString::to_string).collect(),
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

/// Converts `text` to keys of this server's settings, and also returns a remark for each key that they lack: those that [`read`] refuses,
/// and those without an effect.
///
/// # Errors
/// The errors of the syntax, and of missing variables and files.
pub(crate) fn convert(name: &str, text: &str) -> Result<(Vec<Item>, Vec<Remark>), SettingsError> {
    let Text { entries, faults } = parser::read(name, text);
    SettingsError::all(faults.into_iter().map(|fault| SettingsError::Conflict {
        place: fault.place,
        rule: fault.what,
    }))?;
    let mut keys = Keys::default();
    keys.top(entries);
    let mut remarks: Vec<Remark> = keys.errors.iter().filter_map(Remark::of).collect();
    remarks.append(&mut keys.warnings);
    remarks.append(&mut keys.ignored);
    Ok((keys.items, remarks))
}

#[cfg(test)]
mod tests;
