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
mod parser;
mod users;
mod words;

use std::fs;
use std::path::Path;

use standin_daemon::settings::{Item, SettingsError, key_lines};

use self::keys::Keys;
pub(crate) use self::words::is_hash;

/// Reads `text`, which is shown as `name` in errors, as keys of this server's settings.
///
/// # Errors
/// [`SettingsError`] with all that is wrong, each with file and line: not the format, or a key that has no counterpart here.
pub(crate) fn read(name: &str, text: &str) -> Result<Vec<Item>, SettingsError> {
    let keys = parse(name, text)?;
    keys.findings.result()?;
    Ok(keys.items)
}

/// Returns a warning for each key of the file at `path` that is accepted and has no effect; none for a file of another format.
pub(crate) fn warnings(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    let Ok(text) = fs::read_to_string(path) else {
        return Vec::new();
    };
    if !is_named_so(path) && key_lines(&name, &text).is_ok() {
        return Vec::new();
    }
    parse(&name, &text).map_or_else(|_| Vec::new(), |keys| keys.warnings)
}

/// Returns the error of the file at `path`. Where the file is not TOML, is not named `*.toml` and has the syntax of `nats-server`, that is
/// what is wrong with it in this format.
pub(crate) fn error_in_own_format(path: &Path, error: SettingsError) -> SettingsError {
    let is_no_toml = matches!(error, SettingsError::Syntax { .. });
    let is_named_toml = path.extension().is_some_and(|extension| extension == "toml");
    if !is_no_toml || is_named_toml || is_named_so(path) {
        return error;
    }
    let Ok(text) = fs::read_to_string(path) else {
        return error;
    };
    let name = path.display().to_string();
    match parser::read(&name, &text) {
        Ok(_) => read(&name, &text).err().unwrap_or(error),
        Err(_) => error,
    }
}

fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conf")
}

fn parse(name: &str, text: &str) -> Result<Keys, SettingsError> {
    let entries = parser::read(name, text).map_err(|fault| SettingsError::Conflict {
        place: fault.place,
        rule: fault.what,
    })?;
    let mut keys = Keys::default();
    keys.top(entries);
    Ok(keys)
}

#[cfg(test)]
mod tests;
