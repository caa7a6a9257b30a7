//! Reload of the settings after a SIGHUP. Invalid settings change nothing.

use std::fmt::Display;

use tracing::{error, warn};

use crate::logging::Logging;
use crate::settings::{Loaded, SettingsError};

/// Applies reloaded settings: calls `apply`, then sets the log level that `level` returns. Returns whether the settings are in
/// force, and logs the error if they are not.
pub fn reload<S, E: Display>(
    loaded: Result<Loaded<S>, SettingsError>,
    logging: &Logging,
    level: impl FnOnce(&S) -> &str,
    apply: impl FnOnce(S) -> Result<(), E>,
) -> bool {
    let taken = loaded.map_err(|error| error.to_string()).and_then(|loaded| {
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        let level = level(&loaded.settings).to_owned();
        apply(loaded.settings).map_err(|error| error.to_string())?;
        logging.set_level(&level).map_err(|error| error.to_string())
    });
    if let Err(error) = &taken {
        let error = error.replace('\n', "; ");
        error!(%error, "settings were not reloaded");
    }
    taken.is_ok()
}
