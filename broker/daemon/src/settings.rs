//! Settings of a program. They are checked before anything starts.
//!
//! The defaults are a commented TOML file, compiled into the program. The user's file, the environment and the flags override
//! them, in this order (`layers.rs`). The place of each value is kept, and errors name it (`check.rs`). A program supplies a
//! [`Schema`] and a struct whose fields are the keys of the file.
//!
//! | file | holds |
//! |---|---|
//! | `schema.rs` | rules that are not in the compiled-in file, such as the range of a number |
//! | `error.rs` | [`SettingsError`] |
//! | `layers.rs` | the four layers, from the compiled-in file to the flags, joined into one list of keys |
//! | `document.rs` | one TOML text, parsed with line numbers |
//! | `check.rs` | the check of one value: its type, range and form |
//! | `entry.rs` | one key with its value |
//! | `place.rs` | the place of one value, and the places of all |
//! | `suggestion.rs` | the known name that resembles a misspelt one |
//! | `loaded.rs` | the settings in force, and `--print-config` |
//! | `audit.rs` | the comparison of the compiled-in file with the schema, for tests |
//! | `change.rs` | the changes of a SIGHUP, and which of them need a restart |
//! | `zookeeper_auth.rs` | the credentials for ZooKeeper, a setting of both programs |
//! | `secret.rs` | texts that are masked when shown |
//! | `secret_file.rs` | files with secrets: credentials of systemd, and a warning if others can read them |
//! | `units.rs` | times with their unit |

mod audit;
mod change;
mod check;
mod document;
mod entry;
mod error;
mod layers;
mod loaded;
mod place;
mod schema;
mod secret;
mod secret_file;
mod suggestion;
mod units;
mod zookeeper_auth;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::audit::faults;
pub use self::change::{Change, changes, reloaded};
pub use self::check::{host_and_port, list, refused, section};
pub use self::document::{Document, Item};
pub use self::error::SettingsError;
pub use self::layers::{FILE_BYTES_MAX, Flag, Input, of_text};
pub use self::loaded::Loaded;
pub use self::place::{Place, Places};
pub use self::schema::Schema;
pub use self::secret::{MASK, Secret, mask_given, masked_pair, masked_url, masked_whole, without_value};
pub use self::secret_file::secret_file;
pub use self::units::{Micros, Millis, Secs};
pub use self::zookeeper_auth::ZooKeeperAuth;

/// The settings of a program. Its fields are keys, and its structs are sections.
pub trait Settings: Serialize + DeserializeOwned {
    /// The rules for the values.
    const SCHEMA: &'static Schema;

    /// Checks the rules that involve several values.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] at the place of the value to be changed. Several are joined with [`SettingsError::all`].
    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError>;

    /// Checks that all settings that the program needs at its start are there. Called after [`check`](Self::check) has succeeded.
    ///
    /// # Errors
    /// [`SettingsError`].
    fn check_complete(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod sample;
