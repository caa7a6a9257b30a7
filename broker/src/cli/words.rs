//! Conversion of a command line of `nats-server`, in the syntax of Go's `flag` package, to the syntax of clap. Go accepts one dash or
//! two, `-flag=value` or `-flag value`, and `-flag=false` for a switch, but not several one-letter flags behind one dash. The result has
//! two dashes before each flag.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Command;
use clap::error::ErrorKind;

/// A command line in the syntax of clap.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The name of the program, then `--flag` or `--flag=value`.
    pub(super) arguments: Vec<OsString>,
    /// The switches whose last value is `=false`.
    pub(super) off: Vec<String>,
}

/// One name of a flag.
struct Name {
    name: String,
    /// The long name of the flag in clap.
    long: String,
    is_switch: bool,
}

/// Parses a command line. `Command::build` must have been called on `command`.
///
/// # Errors
/// The errors of Go's `flag` package and of `nats-server`. Unknown flags are left to clap, which reports them.
pub(super) fn read(
    arguments: impl IntoIterator<Item = OsString>,
    command: &mut Command,
) -> Result<Words, clap::Error> {
    let names = names(command);
    let mut arguments = arguments.into_iter();
    let mut words = Words::default();
    words.arguments.extend(arguments.next());
    while let Some(word) = arguments.next() {
        let bytes = word.as_bytes();
        let dashes = bytes.iter().take(2).take_while(|byte| **byte == b'-').count();
        if dashes == 0 || bytes == b"-" {
            words.command(command, &word)?;
            break;
        }
        if bytes == b"--" {
            if let Some(word) = arguments.next() {
                words.command(command, &word)?;
            }
            break;
        }
        let (name, value) = split(&bytes[dashes..]);
        if name.is_empty() || name.starts_with(b"-") {
            let message = format!("bad flag syntax: {}", word.display());
            return Err(command.error(ErrorKind::UnknownArgument, message));
        }
        let Some(known) = names.iter().find(|known| known.name.as_bytes() == name) else {
            // As in Go, parsing ends at an unknown flag, because the next word may or may not be its value.
            words.push(&String::from_utf8_lossy(name), value);
            break;
        };
        if known.is_switch {
            match value.map_or(Some(true), switch) {
                Some(on) => words.switch(&known.long, on),
                None => {
                    let message = format!("flag {} takes true or false, not this value", shown(&word));
                    return Err(command.error(ErrorKind::InvalidValue, message));
                }
            }
            continue;
        }
        let next = || arguments.next().map(OsString::into_vec);
        let Some(value) = value.map(<[u8]>::to_vec).or_else(next) else {
            let message = format!("flag {} needs a value", shown(&word));
            return Err(command.error(ErrorKind::InvalidValue, message));
        };
        words.push(&known.long, Some(&value));
    }
    Ok(words)
}

impl Words {
    fn push(&mut self, long: &str, value: Option<&[u8]>) {
        let mut word = format!("--{long}").into_bytes();
        if let Some(value) = value {
            word.push(b'=');
            word.extend_from_slice(value);
        }
        self.arguments.push(OsString::from_vec(word));
    }

    /// Records the value of a switch. The last value of each switch counts.
    fn switch(&mut self, long: &str, on: bool) {
        let word = format!("--{long}");
        self.arguments.retain(|argument| *argument != *word);
        self.off.retain(|off| off != long);
        if on {
            self.push(long, None);
        } else {
            self.off.push(long.to_owned());
        }
    }

    /// Handles a word that is not a flag: `version` or `help`, as in `nats-server`.
    fn command(&mut self, command: &mut Command, word: &OsStr) -> Result<(), clap::Error> {
        match word.to_str().map(str::to_lowercase).as_deref() {
            Some(word @ ("version" | "help")) => self.push(word, None),
            text => {
                let hint = match text {
                    Some("true" | "false") => ": the value of a switch must follow a `=`, as in -D=false",
                    _ => "",
                };
                let word = word.display().to_string();
                let message = format!("unrecognized command {word:?}{hint}");
                return Err(command.error(ErrorKind::UnknownArgument, message));
            }
        }
        Ok(())
    }
}

/// Returns all names of all flags.
fn names(command: &Command) -> Vec<Name> {
    let of = |argument: &clap::Arg| -> Vec<Name> {
        let Some(long) = argument.get_long() else {
            return Vec::new();
        };
        let is_switch = argument
            .get_num_args()
            .is_some_and(|values| values.max_values() == 0);
        let short = argument.get_short().map(String::from);
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let all = short
            .into_iter()
            .chain(aliases.into_iter().chain([long]).map(str::to_owned));
        all.map(|name| Name {
            name,
            long: long.to_owned(),
            is_switch,
        })
        .collect()
    };
    command.get_arguments().flat_map(of).collect()
}

/// Splits `flag=value`.
fn split(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    }
}

/// Parses the value of a switch as Go's `ParseBool` does.
fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// Returns a flag for an error text, without its value, which may be a secret.
fn shown(word: &OsStr) -> String {
    String::from_utf8_lossy(split(word.as_bytes()).0).into_owned()
}

/// Parses a whole number as Go's `flag` package does: decimal, `0x…`, `0o…` or `0…`, `0b…`, with `_` between digits.
///
/// # Errors
/// An error text, if `text` is not such a number.
pub(super) fn number(text: &str) -> Result<i64, String> {
    let wrong = || "must be a whole number".to_owned();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_lowercase();
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let based = prefixes
        .into_iter()
        .find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, radix)))
        .filter(|(rest, _)| !rest.is_empty());
    let (digits, radix) = based.unwrap_or((&lower, 10));
    // As in Go, `_` may follow a prefix.
    let after_prefix = digits.strip_prefix('_').filter(|_| radix != 10);
    let mut groups = after_prefix.unwrap_or(digits).split('_');
    if !groups.all(|group| group.starts_with(|first: char| first.is_digit(radix))) {
        return Err(wrong());
    }
    let digits = digits.replace('_', "");
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_as_in_go() {
        for (text, value) in [
            ("4222", Some(4222)),
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("0", Some(0)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0b11", Some(3)),
            ("1_0", Some(10)),
            ("0x_1_0", Some(16)),
            ("0_10", Some(8)),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("1_-0", None),
            ("08", None),
            ("4222x", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("0x", None),
        ] {
            assert_eq!(number(text).ok(), value, "{text:?}");
        }
    }
}
