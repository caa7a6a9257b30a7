//! A collection of all errors of the settings, so that an operator can correct a file in one go.

use standin_daemon::settings::{Place, Places, SettingsError};

/// Errors, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(Place, String)>);

impl Findings {
    pub(crate) fn add(&mut self, place: Place, what: impl Into<String>) {
        self.0.push((place, what.into()));
    }

    /// Adds the error of values that cannot stand together, at the place of the first of these keys that was given.
    pub(crate) fn conflict(&mut self, places: &Places<'_>, keys: &[&str], rule: impl Into<String>) {
        let mut found = keys.iter().map(|key| places.of(key));
        let place = found.find(|place| *place != Place::Default);
        self.add(place.unwrap_or(Place::Default), rule);
    }

    /// Returns all errors as one, each on a line of its own, in the order of their lines in the file.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`] unless there are none.
    pub(crate) fn result(mut self) -> Result<(), SettingsError> {
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
