//! The terminal to which a command writes: its size, and whether it has colours.

use std::env;
use std::io::{self, IsTerminal as _};

/// The escape sequence that ends a colour.
const PLAIN: &str = "\x1b[0m";

/// The terminal of standard output. `Default` is a file or a pipe: no colours, no size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal {
    has_colours: bool,
    /// Columns and rows; `None` if standard output is not a terminal.
    pub size: Option<(usize, usize)>,
}

impl Terminal {
    /// Returns the terminal of standard output. The variable `NO_COLOR` switches colours off (no-color.org).
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        Self {
            has_colours: !is_set("NO_COLOR") && !is_dumb,
            size: size.filter(|(columns, rows)| *columns > 0 && *rows > 0),
        }
    }

    /// Returns a terminal without colours that has this many columns and rows.
    #[cfg(test)]
    pub(crate) fn of_size(columns: usize, rows: usize) -> Self {
        Self {
            size: Some((columns, rows)),
            ..Self::default()
        }
    }

    /// Returns `text` in a colour, if the terminal has colours.
    #[must_use]
    pub fn coloured(&self, colour: &str, text: &str) -> String {
        if self.has_colours {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// Returns `text` with a `?` for each control character: texts of other programs must not control the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}
