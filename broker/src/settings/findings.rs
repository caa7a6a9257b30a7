//! What is wrong with settings, all of it, so that an operator mends a file in one go.

use standin_daemon::settings::{Place, SettingsError};

/// Errors, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(Place, String)>);

impl Findings {
    pub(crate) fn add(&mut self, place: Place, what: impl Into<String>) {
        self.0.push((place, what.into()));
    }

    /// Returns them as one error, a line each, in the order of their lines.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] unless there are none.
    pub(crate) fn result(mut self) -> Result<(), SettingsError> {
        // In the order of the first file; what is of no file stays where it is.
        self.0.sort_by_key(|(place, _)| match place {
            Place::File(_, line) => *line,
            _ => 0,
        });
        let mut findings = self.0.into_iter();
        let Some((place, first)) = findings.next() else {
            return Ok(());
        };
        let rule = findings.fold(first, |all, (place, what)| format!("{all}\n{place}: {what}"));
        Err(SettingsError::Conflict { place, rule })
    }
}
