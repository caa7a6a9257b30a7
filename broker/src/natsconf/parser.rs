//! The parser of `nats-server`'s settings files: keys with values, maps, lists, variables, included files.
//!
//! All errors of a file are found in one run: after a syntax error, parsing continues with the next line. After an unknown
//! variable, or an included file that cannot be read, only the values from it are missing.

use std::env;
use std::path::Path;
use std::rc::Rc;

use standin_daemon::settings::{FILE_BYTES_MAX, Place};
use standin_tls::bounded_file;

use super::node::{Entry, Node};
use super::words;
use crate::auth::is_hash;

/// Maximum nesting of maps, lists, included files and variables.
const DEPTH_MAX: usize = 32;

const UNCLOSED_TEXT: &str = "a quoted string is never closed";

/// An error in a file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) what: String,
    pub(super) kind: FaultKind,
}

/// Kind of an error, which decides how parsing continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The text does not have the syntax of the format. Parsing continues with the next line.
    Syntax,
    /// Nesting is deeper than [`DEPTH_MAX`]. Parsing ends.
    Depth,
    /// A variable is unknown, or an included file cannot be read. Parsing continues.
    Missing,
}

type Parsed<T> = Result<T, Fault>;

/// The result of parsing a file.
pub(super) struct Text {
    pub(super) entries: Vec<Entry>,
    pub(super) faults: Vec<Fault>,
}

/// Parses the text of the file `name`.
pub(super) fn read(name: &str, text: &str) -> Text {
    Parser::new(name, text, None, 0).file()
}

struct Parser<'a> {
    name: Rc<str>,
    /// The part of the text that is not parsed yet.
    rest: &'a str,
    line: usize,
    /// If the text is the value of an environment variable: the place where the file refers to it.
    within: Option<Place>,
    /// The number of includes, variables and lists around the next value.
    depth: usize,
    /// The maps around the next key, the outermost first.
    maps: Vec<Vec<Entry>>,
    faults: Vec<Fault>,
}

impl<'a> Parser<'a> {
    fn new(name: &str, text: &'a str, within: Option<Place>, depth: usize) -> Self {
        Self {
            name: name.into(),
            rest: text,
            line: 1,
            within,
            depth,
            maps: vec![Vec::new()],
            faults: Vec::new(),
        }
    }

    fn place(&self) -> Place {
        let here = || Place::file(&self.name, self.line);
        self.within.clone().unwrap_or_else(here)
    }

    fn fault(&self, kind: FaultKind, what: impl Into<String>) -> Fault {
        Fault {
            place: self.place(),
            what: what.into(),
            kind,
        }
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Parsed<T> {
        Err(self.fault(FaultKind::Syntax, what))
    }

    /// Records that a brace or bracket is never closed. After a syntax error nothing is recorded, because the closing brace or
    /// bracket may be in the skipped rest of that line.
    fn unclosed(&mut self, opened: char) {
        let is_syntax = |fault: &Fault| fault.kind == FaultKind::Syntax;
        if !self.faults.iter().any(is_syntax) {
            let fault = self.fault(FaultKind::Syntax, format!("a `{opened}` is never closed"));
            self.recover(Err(fault));
        }
    }

    /// Records a [`FaultKind::Missing`] and returns [`Node::Unknown`].
    fn unknown(&mut self, what: impl Into<String>) -> Node {
        self.faults.push(self.fault(FaultKind::Missing, what));
        Node::Unknown
    }

    /// Records the error of `parsed`, if there is one, and skips to the next line, or for [`FaultKind::Depth`] to the end. Keeps
    /// only the first syntax error of a line.
    fn recover(&mut self, parsed: Parsed<()>) {
        let Err(fault) = parsed else {
            return;
        };
        self.skip(|next| fault.kind == FaultKind::Depth || next != '\n');
        let is_consequence = self.faults.last().is_some_and(|before| match before.kind {
            FaultKind::Syntax => before.place == fault.place,
            FaultKind::Depth => true,
            FaultKind::Missing => false,
        });
        if !is_consequence {
            self.faults.push(fault);
        }
    }

    /// Ends the innermost map.
    fn end_map(&mut self) -> Vec<Entry> {
        let mut map = self.maps.pop().unwrap_or_default();
        map.retain(|entry| entry.node != Node::Unknown);
        map
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.take(next.len_utf8());
        Some(next)
    }

    /// Consumes the given number of bytes.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Consumes the text up to `quote`, and `quote` itself. `unclosed` is the error text if `quote` is missing.
    fn take_until(&mut self, quote: char, unclosed: &str) -> Parsed<&'a str> {
        let Some(end) = self.rest.find(quote) else {
            return self.wrong(unclosed);
        };
        let text = self.take(end);
        self.next();
        Ok(text)
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        let left = self.rest.trim_start_matches(skipped);
        self.take(self.rest.len() - left.len());
    }

    /// Skips whitespace, line ends and comments.
    fn skip_lines(&mut self) {
        loop {
            self.skip(char::is_whitespace);
            if !self.skip_comment() {
                return;
            }
        }
    }

    fn skip_comment(&mut self) -> bool {
        let is_comment = self.rest.starts_with('#') || self.rest.starts_with("//");
        if is_comment {
            self.skip(|next| next != '\n');
        }
        is_comment
    }

    /// Consumes what separates an entry or item from the next one: one of `separators`, a line end, a comment, or nothing before
    /// `closing`. `fault` returns the error text for any other character.
    fn separator(
        &mut self,
        separators: &[char],
        closing: char,
        fault: impl FnOnce(char) -> String,
    ) -> Parsed<()> {
        self.skip(words::is_space);
        match self.peek() {
            Some(next) if separators.contains(&next) => _ = self.next(),
            Some(next) if next == closing || words::is_line_end(next) => {}
            Some(next) if !self.skip_comment() => return self.wrong(fault(next)),
            _ => {}
        }
        Ok(())
    }

    /// Parses an entry and the separator after it. `missing` begins the error text if the separator is missing.
    fn entry_with_separator(&mut self, missing: &str) {
        let parsed = self.entry().and_then(|()| {
            let fault = |next| format!("{missing} is missing before `{next}`");
            self.separator(&[',', ';'], '}', fault)
        });
        self.recover(parsed);
    }

    /// Parses a file. The entries may be enclosed in braces.
    fn file(mut self) -> Text {
        let mut braces = 0_usize;
        loop {
            self.skip_lines();
            match self.peek() {
                None => break,
                Some('{') => {
                    self.next();
                    braces += 1;
                }
                Some('}') if braces > 0 => {
                    self.next();
                    braces -= 1;
                    self.skip(|next| next == ',' || next == ';');
                }
                Some(_) => self.entry_with_separator("a line end or `,`"),
            }
        }
        if braces > 0 {
            self.unclosed('{');
        }
        Text {
            entries: self.end_map(),
            faults: self.faults,
        }
    }

    /// Parses a key with its value, or an include.
    fn entry(&mut self) -> Parsed<()> {
        let place = self.place();
        let Some(key) = self.key()? else {
            return self.include();
        };
        self.skip(char::is_whitespace);
        let is_separated = matches!(self.peek(), Some(':' | '='));
        if is_separated {
            self.next();
        }
        // As in nats-server, the value may be on the next line: always in a map, at the top level only without a separator.
        if self.maps.len() > 1 || !is_separated {
            self.skip(char::is_whitespace);
        } else {
            self.skip(words::is_space);
        }
        if matches!(self.peek(), Some('}' | ',')) || self.peek().is_some_and(words::is_line_end) {
            // The key is not shown, because it may be a part of a password without quotes.
            return self.wrong("a key has no value (put a string with , ; { } [ ] $ or spaces in quotes)");
        }
        let node = self.value()?;
        let is_used = Rc::default();
        self.set(Entry {
            key,
            place,
            node,
            is_used,
        });
        Ok(())
    }

    /// Adds a key to the innermost map. The last value of a key counts.
    fn set(&mut self, entry: Entry) {
        if let Some(map) = self.maps.last_mut() {
            map.retain(|other| other.key != entry.key);
            map.push(entry);
        }
    }

    /// Parses a key. `None` is the word `include`.
    fn key(&mut self) -> Parsed<Option<String>> {
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            self.next();
            let key = self.take_until(quote, "a key in quotes is never closed")?;
            return Ok(Some(key.to_owned()));
        }
        if matches!(self.peek(), None | Some(':' | '=' | '}' | ']' | ',' | ';')) {
            return self.wrong("a key is missing");
        }
        let is_end = |next: char| next.is_whitespace() || next == ':' || next == '=';
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let key = self.take(end);
        if let Some(brace) = key.find('{').filter(|at| *at > 0) {
            return self.wrong(format!("a space is missing between {} and `{{`", &key[..brace]));
        }
        let is_include = key.eq_ignore_ascii_case("include") && self.peek().is_some_and(char::is_whitespace);
        Ok((!is_include).then(|| key.to_owned()))
    }

    /// Parses an included file. Its path is relative to the folder of this file.
    fn include(&mut self) -> Parsed<()> {
        self.skip(words::is_space);
        let file = match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.next();
                self.take_until(quote, "the name of an included file is never closed")?
            }
            _ => {
                let is_end = |next: char| {
                    words::is_line_end(next) || words::is_space(next) || matches!(next, ';' | '}')
                };
                let end = self.rest.find(is_end).unwrap_or(self.rest.len());
                self.take(end)
            }
        };
        if file.is_empty() {
            return self.wrong("include has no file name");
        }
        let path = Path::new(&*self.name)
            .parent()
            .unwrap_or(Path::new(""))
            .join(file);
        let name = path.display().to_string();
        if self.depth == DEPTH_MAX {
            let what = format!(
                "{name}: includes are nested too deeply (limit {DEPTH_MAX}); does it include itself?"
            );
            return Err(self.fault(FaultKind::Depth, what));
        }
        let text = bounded_file::read_text(&path, FILE_BYTES_MAX).unwrap_or_else(|error| {
            self.unknown(format!("cannot read the included file {name}: {error}"));
            String::new()
        });
        let Text { entries, mut faults } = Parser::new(&name, &text, None, self.depth + 1).file();
        entries.into_iter().for_each(|entry| self.set(entry));
        // A nesting error is returned and not recorded here, because it also ends the parsing of the including files.
        let too_deep = faults.pop_if(|fault| fault.kind == FaultKind::Depth);
        self.faults.append(&mut faults);
        too_deep.map_or(Ok(()), Err)
    }

    fn value(&mut self) -> Parsed<Node> {
        match self.peek() {
            Some('{') => {
                self.next();
                self.map()
            }
            Some('[') => {
                self.next();
                self.list()
            }
            Some('(') => {
                self.next();
                self.block()
            }
            Some('\'') => {
                self.next();
                let text = self.take_until('\'', UNCLOSED_TEXT)?;
                Ok(Node::Text(text.to_owned()))
            }
            Some('"') => {
                self.next();
                self.quoted()
            }
            _ => self.word(),
        }
    }

    /// Checks the nesting before a map or list.
    fn nested(&self) -> Parsed<()> {
        if self.maps.len() + self.depth >= DEPTH_MAX {
            let what = format!("maps and lists are nested too deeply (limit {DEPTH_MAX})");
            return Err(self.fault(FaultKind::Depth, what));
        }
        Ok(())
    }

    /// Parses a map. A map that is never closed has all entries up to the end of the file.
    fn map(&mut self) -> Parsed<Node> {
        self.nested()?;
        self.maps.push(Vec::new());
        loop {
            self.skip_lines();
            match self.peek() {
                None => {
                    self.unclosed('{');
                    break;
                }
                Some('}') => break,
                Some(_) => self.entry_with_separator("`,` or `}`"),
            }
        }
        self.next();
        Ok(Node::Map(self.end_map()))
    }

    fn list(&mut self) -> Parsed<Node> {
        self.nested()?;
        self.depth += 1;
        let mut items = Vec::new();
        loop {
            self.skip_lines();
            match self.peek() {
                None => {
                    self.unclosed('[');
                    break;
                }
                Some(']') => break,
                Some(_) => {
                    let parsed = self.item(&mut items);
                    self.recover(parsed);
                }
            }
        }
        self.next();
        self.depth -= 1;
        Ok(Node::List(items))
    }

    /// Parses an item of a list, with the separator after it.
    fn item(&mut self, items: &mut Vec<(Place, Node)>) -> Parsed<()> {
        if self.peek() == Some(',') {
            return self.wrong("a value is missing before `,`");
        }
        let place = self.place();
        let node = self.value()?;
        if node != Node::Unknown {
            items.push((place, node));
        }
        self.separator(&[','], ']', |next| {
            format!("`,` or `]` is missing before `{next}`")
        })
    }

    /// Parses a string of several lines, which ends at a `)` on a line of its own.
    fn block(&mut self) -> Parsed<Node> {
        let ends = self.rest.match_indices("\n)").map(|(at, _)| at + 1);
        let is_alone = |at: &usize| matches!(self.rest[at + 1..].chars().next(), None | Some('\n'));
        let Some(end) = ends.into_iter().find(is_alone) else {
            return self.wrong("a `(` is never closed by a `)` on a line of its own");
        };
        let text = self.take(end).to_owned();
        self.next();
        Ok(Node::Text(text))
    }

    /// Parses a string in double quotes.
    fn quoted(&mut self) -> Parsed<Node> {
        let unclosed = self.fault(FaultKind::Syntax, UNCLOSED_TEXT);
        let mut text = Vec::new();
        loop {
            match self.next() {
                Some('"') => return self.text(text),
                Some(next) => self.unescape(next, &mut text)?,
                None => return Err(unclosed),
            }
        }
    }

    /// Appends the character `next`, or the byte of the escape sequence that it begins.
    fn unescape(&mut self, next: char, text: &mut Vec<u8>) -> Parsed<()> {
        match next {
            '\\' => text.push(self.escape()?),
            _ => text.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        Ok(())
    }

    /// Parses an escape sequence after its backslash.
    fn escape(&mut self) -> Parsed<u8> {
        Ok(match self.next() {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                let digits = self.rest.get(..2).filter(|digits| !digits.starts_with('+'));
                let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return self.wrong("\\x must be followed by two hexadecimal digits");
                };
                self.take(2);
                byte
            }
            _ => {
                return self.wrong("unknown escape sequence; the known ones are \\xXX \\n \\t \\r \\\" \\\\");
            }
        })
    }

    fn text(&self, bytes: Vec<u8>) -> Parsed<Node> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Node::Text(text)),
            Err(_) => self.wrong("a string is not UTF-8"),
        }
    }

    /// Parses a value without quotes.
    fn word(&mut self) -> Parsed<Node> {
        match words::number(self.rest) {
            Ok(Some((bytes, node))) => {
                self.take(bytes);
                return Ok(node);
            }
            Ok(None) => {}
            Err(what) => return self.wrong(what),
        }
        let end = words::end(self.rest);
        let source = &self.rest[..end];
        if source.contains('\\') {
            let mut text = Vec::new();
            let stop = self.rest.len() - end;
            while self.rest.len() > stop
                && let Some(next) = self.next()
            {
                self.unescape(next, &mut text)?;
            }
            self.end_quote();
            return self.text(text);
        }
        self.take(end);
        if self.end_quote() {
            return Ok(Node::Text(source.to_owned()));
        }
        match source.strip_prefix('$') {
            Some(_) if is_hash(source) => Ok(Node::Text(source.to_owned())),
            Some(name) => self.variable(name),
            None => Ok(words::plain(source)),
        }
    }

    /// Skips a single quote at the end of a word, which `nats-server` accepts.
    fn end_quote(&mut self) -> bool {
        let is_quote = self.peek() == Some('\'');
        if is_quote {
            self.next();
        }
        is_quote
    }

    /// Resolves a variable: first a key in the enclosing maps, innermost first, then the environment.
    fn variable(&mut self, name: &str) -> Parsed<Node> {
        let mut known = self.maps.iter().rev().flatten();
        if let Some(entry) = known.find(|entry| entry.key == name) {
            entry.is_used.set(true);
            return Ok(entry.node.clone());
        }
        // The name is shown only if it looks like one. Otherwise it may be a password that begins with `$`.
        let is_name = name
            .chars()
            .all(|next| next.is_ascii_uppercase() || next.is_ascii_digit() || next == '_');
        let shown = if is_name { name } else { "***" };
        let Ok(value) = env::var(name) else {
            return Ok(self.unknown(format!(
                "the variable ${shown} is neither a key above nor in the environment (put a string that begins with $ in quotes)"
            )));
        };
        if self.depth == DEPTH_MAX {
            let what = format!("the environment variable ${shown} refers to itself");
            return Err(self.fault(FaultKind::Depth, what));
        }
        let text = format!("value={value}");
        let read = Parser::new(&self.name, &text, Some(self.place()), self.depth + 1).file();
        if let Some(mut fault) = read.faults.into_iter().next() {
            fault.what = format!("the environment variable ${shown}: {}", fault.what);
            return Err(fault);
        }
        let value = read.entries.into_iter().find(|entry| entry.key == "value");
        Ok(value.map_or_else(|| Node::Text(String::new()), |entry| entry.node))
    }
}
