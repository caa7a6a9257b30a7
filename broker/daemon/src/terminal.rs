//! The terminal to which a command writes: its size, and whether it has colours.

use std::env;
use std::io::{self, IsTerminal as _};
use std::ops::RangeInclusive;

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

/// Returns `text` with a `?` for each character that controls: texts of other programs must not control the terminal, and a name must
/// not look like another one because some of its characters are invisible or change the direction of writing.
#[must_use]
pub fn printable(text: &str) -> String {
    const FORMATTING: [RangeInclusive<char>; 4] = [
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
    ];
    let controls =
        |letter: char| letter.is_control() || FORMATTING.iter().any(|range| range.contains(&letter));
    text.replace(controls, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_or_are_invisible_are_shown_as_question_marks() {
        assert_eq!(printable("\x1b[31m\u{202e}gnp.exe\u{200b}\n"), "?[31m?gnp.exe??");
        assert_eq!(printable("gorouter é 路 😀"), "gorouter é 路 😀");
    }
}
