//! The place where a value was given: a line of a file, an environment variable, or a flag.

use std::fmt;
use std::sync::Arc;

/// Place where a value was given, as errors and `--print-config` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The compiled-in file.
    Default,
    /// A line of a file, counted from 1.
    File(Arc<str>, usize),
    /// An environment variable.
    Variable(String),
    /// A flag, including its dashes.
    Flag(&'static str),
}

impl Place {
    /// Creates the place of a line of a file, counted from 1.
    #[must_use]
    pub fn file(name: &str, line: usize) -> Self {
        Self::File(name.into(), line)
    }

    /// Returns a value that orders errors: by lines of the file, then the environment, then the flags.
    pub(super) const fn rank(&self) -> (u8, usize) {
        match self {
            Self::File(_, line) => (0, *line),
            Self::Variable(_) => (1, 0),
            Self::Flag(_) => (2, 0),
            Self::Default => (3, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("the defaults"),
            Self::File(name, line) => write!(formatter, "{name}:{line}"),
            Self::Variable(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}
