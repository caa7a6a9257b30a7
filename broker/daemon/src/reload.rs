//! Reload of the settings, after SIGHUP or a change of a certificate file. Invalid settings change nothing.

use std::fmt::Display;

use tracing::{error, warn};

use crate::logging::Logging;
use crate::settings::{Loaded, Settings, SettingsError, changes};

/// Applies reloaded settings: calls `apply`, then sets the log level that `level` returns. Returns whether the settings are in
/// force, and logs the error if they are not. `old` are the settings in force before.
pub fn reload<S: Settings, E: Display>(
    old: &S,
    loaded: Result<Loaded<S>, SettingsError>,
    logging: &Logging,
    level: impl FnOnce(&S) -> &str,
    apply: impl FnOnce(S) -> Result<(), E>,
) -> bool {
    let taken = loaded.map_err(|error| error.to_string()).and_then(|loaded| {
        refuse_emptied_file(old, &loaded)?;
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

/// Refuses a settings file without any key if it would change settings. Some editors empty a file before they write it, and the
/// defaults have neither users nor TLS.
fn refuse_emptied_file<S: Settings>(old: &S, loaded: &Loaded<S>) -> Result<(), String> {
    match &loaded.empty_file {
        Some(file) if !changes(old, &loaded.settings).is_empty() => Err(format!(
            "{file} has no settings: write at least one, and send SIGHUP again; a restart applies the defaults"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::of_text;
    use crate::settings::sample::Sample;

    #[test]
    fn a_file_that_was_emptied_is_refused() {
        let of = |text| of_text::<Sample>("settings", text).unwrap();
        let old = of("listen = [\"h:1\"]\n").settings;
        for text in ["", "# Nothing.\n", "[session]\n"] {
            let error = refuse_emptied_file(&old, &of(text)).unwrap_err();
            assert!(error.starts_with("settings has no settings"), "{error}");
            assert_eq!(refuse_emptied_file(&of("").settings, &of(text)), Ok(()));
        }
        assert_eq!(refuse_emptied_file(&old, &of("port = 1\n")), Ok(()));
    }
}
