//! [`Remark`], a remark about one key of a file.

use std::fmt;

use standin_daemon::settings::{Place, SettingsError};

/// A remark about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) place: Place,
    /// The key and the remark.
    pub(crate) text: String,
}

impl Remark {
    pub(crate) fn new(place: &Place, text: String) -> Self {
        Self {
            place: place.clone(),
            text,
        }
    }

    /// Creates a remark from an error about one place; `None` for other errors.
    pub(crate) fn of(error: &SettingsError) -> Option<Self> {
        let place = error.place()?;
        let whole = error.to_string();
        let text = whole.strip_prefix(&format!("{place}: ")).unwrap_or(&whole);
        Some(Self::new(place, text.to_owned()))
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.text)
    }
}
