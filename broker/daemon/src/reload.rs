//! SIGHUP, as both programs answer it: bad settings change nothing.

use std::fmt::Display;

use tracing::{error, warn};

use crate::logging::Logging;
use crate::settings::{Loaded, SettingsError};

/// Takes over settings that were read again: the log's level, which `level` finds in them, then all else with `apply`. Returns
/// whether they are in force; if not, the log says why.
pub fn reload<S, E: Display>(
    loaded: Result<Loaded<S>, SettingsError>,
    logging: &Logging,
    level: impl FnOnce(&S) -> &str,
    apply: impl FnOnce(S) -> Result<(), E>,
) -> bool {
    let taken = loaded.map_err(|error| error.to_string()).and_then(|loaded| {
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        let set = logging.set_level(level(&loaded.settings));
        set.map_err(|error| error.to_string())?;
        apply(loaded.settings).map_err(|error| error.to_string())
    });
    if let Err(error) = &taken {
        let error = error.replace('\n', "; ");
        error!("settings were not reloaded, the old ones stay in force: {error}");
    }
    taken.is_ok()
}
