//! The settings and the certificates that they name.

use std::fmt;

use super::report::Row;
use crate::certificate_watch::{self, Doors};
use crate::settings::Loaded;

/// Returns the rows about valid settings: one that says so, or one for each warning.
pub fn valid<S: fmt::Debug>(loaded: &Loaded<S>, file: Option<String>) -> Vec<Row> {
    const CHECK: &str = "settings";
    let subject = file.unwrap_or_default();
    if loaded.warnings.is_empty() {
        return vec![Row::ok(CHECK, subject, "valid")];
    }
    let warnings = loaded.warnings.iter();
    let row = |warning: &String| Row::warn(CHECK, &subject, warning, "change the setting if it is a mistake");
    warnings.map(row).collect()
}

/// Returns a row for each certificate of the settings.
#[must_use]
pub fn certificates(doors: &Doors) -> Vec<Row> {
    const CHECK: &str = "certificate";
    let row = |door: &(String, standin_tls::files::Files)| {
        let (name, files) = door;
        if files.cert.as_os_str().is_empty() {
            return None;
        }
        let Some((message, days)) = certificate_watch::expiring(files) else {
            return Some(Row::ok(CHECK, name, format!("{} is valid", files.cert.display())));
        };
        let found = format!("{}: {message} (days left: {days})", files.cert.display());
        let remedy = "replace the certificate, or set the clock of this host if it is wrong (timedatectl)";
        Some(if days < 0 {
            Row::fail(CHECK, name, found, remedy)
        } else {
            Row::warn(CHECK, name, found, remedy)
        })
    };
    doors.iter().filter_map(row).collect()
}
