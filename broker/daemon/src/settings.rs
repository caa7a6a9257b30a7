//! Settings: what an operator may say, checked before anything starts.
//!
//! The defaults are a commented TOML file, compiled in. The user's file, the environment and the flags override it, in this
//! order ([`layers`]). Each value remembers its place, and errors name it ([`check`]). A program supplies a [`Schema`] and a
//! struct with the file's keys as fields.
//!
//! | file | holds |
//! |---|---|
//! | [`schema`] | what the compiled-in file cannot say by itself |
//! | [`error`] | [`SettingsError`] |
//! | [`layers`] | the four layers, from the compiled-in file to the flags, as one list of keys with values and origins |
//! | [`document`] | one TOML text, read with line numbers |
//! | [`check`] | whether a value is of its key's type, in its range, and of its form |
//! | [`entry`], [`place`], [`places`] | one key with its value; where it was given; where all were |
//! | [`suggestion`] | the known name that resembles a misspelt one |
//! | [`loaded`] | the settings in force, and `--print-config` |
//! | [`audit`] | whether the compiled-in file tells what the schema says |
//! | [`change`] | what a SIGHUP changed, and what of it needs a restart |
//! | [`zookeeper_auth`] | the credentials for ZooKeeper, a setting of both programs |
//! | [`secret`], [`units`] | texts that are shown masked, times with their unit |

mod audit;
mod change;
mod check;
mod document;
mod entry;
mod error;
mod layers;
mod loaded;
mod place;
mod places;
mod schema;
mod secret;
mod suggestion;
mod units;
mod zookeeper_auth;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::audit::faults;
pub use self::change::{Change, Effect, changes, reloaded};
pub use self::check::{host_and_port, list, not_a_word, refused};
pub use self::document::{Document, Item};
pub use self::error::SettingsError;
pub use self::layers::{Flag, Input, of_text};
pub use self::loaded::Loaded;
pub use self::place::Place;
pub use self::places::Places;
pub use self::schema::{OtherFormat, Schema};
pub use self::secret::{
    MASK, Mask, Pair, Secret, Url, Whole, mask_given, masked_pair, masked_url, masked_whole,
};
pub use self::units::{Micros, Millis, Secs};
pub use self::zookeeper_auth::ZooKeeperAuth;

/// The settings of one program. Fields are keys, structs in it are sections.
pub trait Settings: Serialize + DeserializeOwned {
    /// The schema.
    const SCHEMA: &'static Schema;

    /// Checks what must hold between values.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] at the place of the value that should change; [`SettingsError::all`] of them.
    fn check(&self, places: &Places<'_>) -> Result<(), SettingsError>;

    /// Checks what only a starting program needs. Called after [`check`](Self::check) has passed.
    ///
    /// # Errors
    /// [`SettingsError`].
    fn check_complete(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

#[cfg(test)]
mod sample;
