//! The text of a settings file of `nats-server`, taken apart: keys with values, maps and lists in each other, variables.

use std::env;
use std::iter::Peekable;
use std::str::Chars;

use standin_daemon::settings::{Place, SettingsError};

/// Maps in maps are read up to this depth.
const DEPTH_MAX: usize = 16;

/// A value as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    Flag(bool),
    Map(Vec<Entry>),
    List(Vec<(usize, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

/// See the file's head.
pub(super) struct Parser<'a> {
    name: &'a str,
    chars: Peekable<Chars<'a>>,
    line: usize,
    /// Keys above the first map, for `$KEY`.
    known: Vec<(String, Node)>,
    /// Those that were referred to.
    used: Vec<String>,
}

impl<'a> Parser<'a> {
    /// For `text`, which is shown as `name` in errors.
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self {
            name,
            chars: text.chars().peekable(),
            line: 1,
            known: Vec::new(),
            used: Vec::new(),
        }
    }

    /// Whether `$KEY` was referred to.
    pub(super) fn has_used(&self, key: &str) -> bool {
        self.used.iter().any(|used| used == key)
    }

    fn wrong(&self, what: impl Into<String>) -> SettingsError {
        SettingsError::Syntax {
            place: Place::file(self.name, self.line),
            format: "nats-server's format",
            message: what.into(),
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Blanks, line ends, commas between entries, comments.
    fn skip(&mut self) {
        while let Some(next) = self.chars.peek().copied() {
            if next == '#' || next == '/' && self.chars.clone().nth(1) == Some('/') {
                while self.chars.peek().is_some_and(|next| *next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() || next == ',' || next == ';' {
                self.next();
            } else {
                return;
            }
        }
    }

    /// The entries of the file, which may be one map.
    pub(super) fn file(&mut self) -> Result<Vec<Entry>, SettingsError> {
        self.skip();
        if self.chars.peek() != Some(&'{') {
            return self.map(0);
        }
        self.next();
        let entries = self.map(1)?;
        self.skip();
        match self.chars.peek() {
            None => Ok(entries),
            Some(_) => Err(self.wrong("something follows the `}` that ends the whole")),
        }
    }

    /// The entries up to the end of the map, or at depth 0 of the file.
    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, SettingsError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("maps in maps in maps: deeper than is read"));
        }
        let mut entries = Vec::new();
        loop {
            self.skip();
            match self.chars.peek() {
                None if depth == 0 => return Ok(entries),
                None => return Err(self.wrong("a `{` is never closed")),
                Some('}') if depth > 0 => {
                    self.next();
                    return Ok(entries);
                }
                Some(_) => {}
            }
            let line = self.line;
            let key = self.key()?;
            self.skip();
            if matches!(self.chars.peek(), Some(':' | '=')) {
                self.next();
                self.skip();
            }
            let node = self.value(depth)?;
            if depth == 0 {
                self.known.push((key.clone(), node.clone()));
            }
            entries.push(Entry { key, line, node });
        }
    }

    fn key(&mut self) -> Result<String, SettingsError> {
        let key = match self.chars.peek().copied() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            _ => self.word(&[':', '=', '{', '}', '[', ']', ',']),
        };
        if key.is_empty() {
            return Err(self.wrong("a key is missing here"));
        }
        if key == "include" {
            return Err(self.wrong("include is not read; put the text itself there"));
        }
        Ok(key.to_lowercase())
    }

    fn word(&mut self, ends: &[char]) -> String {
        let mut word = String::new();
        while let Some(next) = self.chars.peek().copied() {
            if next.is_whitespace() || ends.contains(&next) || next == '#' || next == ';' {
                break;
            }
            word.push(next);
            self.next();
        }
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String, SettingsError> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some(next) if next == quote => return Ok(text),
                Some('\\') if quote == '"' => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(plain @ ('"' | '\\')) => text.push(plain),
                    _ => return Err(self.wrong("only \\n \\t \\r \\\" \\\\ may stand behind a backslash")),
                },
                Some('\n') | None => return Err(self.wrong("a text is never closed")),
                Some(next) => text.push(next),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, SettingsError> {
        match self.chars.peek().copied() {
            Some('{') => {
                self.next();
                Ok(Node::Map(self.map(depth + 1)?))
            }
            Some('[') => {
                self.next();
                self.list(depth + 1)
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(Node::Text),
            _ => {
                let word = self.word(&['}', ']', ',']);
                match word.strip_prefix('$') {
                    _ if word.is_empty() => Err(self.wrong("a value is missing here")),
                    Some(variable) => self.variable(variable),
                    None => Ok(plain(&word)),
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, SettingsError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("lists in lists in lists: deeper than is read"));
        }
        let mut items = Vec::new();
        loop {
            self.skip();
            match self.chars.peek() {
                None => return Err(self.wrong("a `[` is never closed")),
                Some(']') => {
                    self.next();
                    return Ok(Node::List(items));
                }
                Some(_) => items.push((self.line, self.value(depth)?)),
            }
        }
    }

    /// A key that stands above, or else a variable of the environment.
    fn variable(&mut self, name: &str) -> Result<Node, SettingsError> {
        self.used.push(name.to_lowercase());
        let above = self
            .known
            .iter()
            .rev()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        let of_environment = || env::var(name).ok().map(|text| plain(&text));
        above
            .map(|(_, node)| node.clone())
            .or_else(of_environment)
            .ok_or_else(|| self.wrong(format!("${name} is neither a key above nor in the environment")))
    }
}

/// A word without quotes: a yes or no, a number with or without a unit of bytes, or a text.
fn plain(word: &str) -> Node {
    match word.to_lowercase().as_str() {
        "true" | "yes" | "on" => return Node::Flag(true),
        "false" | "no" | "off" => return Node::Flag(false),
        _ => {}
    }
    let digits = word
        .trim_start_matches('-')
        .chars()
        .take_while(char::is_ascii_digit)
        .count();
    let (number, unit) = word.split_at(digits + usize::from(word.starts_with('-')));
    let scale = match unit.to_lowercase().as_str() {
        "" => Some(1),
        "k" => Some(1000),
        "kb" | "ki" | "kib" => Some(1 << 10),
        "m" => Some(1_000_000),
        "mb" | "mi" | "mib" => Some(1 << 20),
        "g" => Some(1_000_000_000),
        "gb" | "gi" | "gib" => Some(1 << 30),
        _ => None,
    };
    let scaled = scale.and_then(|scale: i64| number.parse::<i64>().ok()?.checked_mul(scale));
    scaled.map_or_else(|| Node::Text(word.to_owned()), Node::Integer)
}
