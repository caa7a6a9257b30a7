//! The report of `doctor`: a row for each check, with its verdict, what was found, and the remedy.
//!
//! A person reads the table, and a script the exit code or the JSON. Names of checks and fields of the JSON may be added, but are
//! never removed or renamed.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::{EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_WARNINGS};
use crate::live_view;
use crate::terminal::{Terminal, printable};

/// Help text about the exit codes, for both programs.
pub const EXIT_CODES: &str = "\
Exit codes: 0 all is well; 1 warnings, but nothing fails; 69 a check fails; 64 the settings or the command line are not valid.
A script that accepts warnings: standin-… doctor || [ $? -eq 1 ]
The fields of --json: program, version, verdict (ok, warn, fail), rows; of a row: verdict, check, subject, found, remedy (null if ok).
Nothing is written anywhere, and no secret is printed. Run it as the user of the service: files are checked for the user who runs it.";

/// Width of the first column: the longest verdict.
const VERDICT_COLUMNS: usize = 4;
/// Largest width of the second column: the check with its subject. In a row where these are longer, the third column starts further right.
const CHECK_COLUMNS_MAX: usize = 44;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// It works, but should be looked at.
    Warn,
    /// Something does not work.
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    /// Returns the escape sequence of the colour: green, yellow or red.
    const fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
        }
    }
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The verdict.
    pub verdict: Verdict,
    /// Name of the check.
    pub check: &'static str,
    /// What was checked: an address, a file, a name. Empty if the check has no single subject.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it. `None` if the verdict is `Ok`, and only then.
    pub remedy: Option<String>,
}

impl Row {
    /// Creates the row of a check that found nothing to do.
    pub fn ok(check: &'static str, subject: impl fmt::Display, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            check,
            subject: subject.to_string(),
            found: found.into(),
            remedy: None,
        }
    }

    /// Creates the row of a check that found something to look at.
    pub fn warn(
        check: &'static str,
        subject: impl fmt::Display,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(check, subject, found)
        }
    }

    /// Creates the row of a check that found something that does not work.
    pub fn fail(
        check: &'static str,
        subject: impl fmt::Display,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, subject, found, remedy)
        }
    }

    /// Returns the check with its subject.
    fn name(&self) -> String {
        printable(format!("{} {}", self.check, self.subject).trim_end())
    }
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    program: &'static str,
    version: &'static str,
    verdict: Verdict,
    rows: Vec<Row>,
    #[serde(skip)]
    has_invalid_settings: bool,
}

impl Report {
    /// Prints the report to standard output, as JSON or as a table. Returns the exit code: that of the report, if it could be printed.
    #[must_use]
    pub fn print(&self, as_json: bool) -> ExitCode {
        let text = if as_json {
            self.json()
        } else {
            self.table(&Terminal::of_stdout())
        };
        let printed = live_view::print(self.program, &text);
        if printed == ExitCode::SUCCESS {
            self.exit_code().into()
        } else {
            printed
        }
    }

    /// Creates an empty report of `program`.
    #[must_use]
    pub const fn new(program: &'static str, version: &'static str) -> Self {
        Self {
            program,
            version,
            verdict: Verdict::Ok,
            rows: Vec::new(),
            has_invalid_settings: false,
        }
    }

    /// Adds rows.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.verdict = self.verdict.max(row.verdict);
            self.rows.push(row);
        }
    }

    /// Adds a row for each line of an error in the settings. Nothing else can be checked then.
    pub fn add_invalid_settings(&mut self, error: &dyn std::error::Error) {
        self.has_invalid_settings = true;
        let text = error.to_string();
        let rows = text
            .lines()
            .map(|line| Row::fail("settings", "", line, "correct the settings"));
        self.add(rows.collect::<Vec<_>>());
    }

    /// Returns the rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the exit code; [`EXIT_CODES`] describes it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.verdict {
            _ if self.has_invalid_settings => EXIT_USAGE,
            Verdict::Ok => EXIT_DONE,
            Verdict::Warn => EXIT_WARNINGS,
            Verdict::Fail => EXIT_UNAVAILABLE,
        }
    }

    /// Returns the report as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers can always be written as JSON.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    /// Returns the report as a table, with colours if the terminal has them.
    #[must_use]
    pub fn table(&self, terminal: &Terminal) -> String {
        let width = self.rows.iter().map(|row| row.name().chars().count()).max();
        let width = width.unwrap_or_default().min(CHECK_COLUMNS_MAX);
        let mut text = String::new();
        for row in &self.rows {
            let verdict = format!("{:VERDICT_COLUMNS$}", row.verdict.as_str());
            let verdict = terminal.coloured(row.verdict.colour(), &verdict);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{verdict}  {:width$}  {}",
                row.name(),
                printable(&row.found)
            );
            if let Some(remedy) = &row.remedy {
                let indent = VERDICT_COLUMNS + 2;
                let _ = writeln!(text, "{:indent$}-> {}", "", printable(remedy));
            }
        }
        let count = |verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        let (ok, warn, fail) = (count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
        let _ = writeln!(text, "\n{ok} OK, {warn} WARN, {fail} FAIL");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_decides_the_exit_code() {
        let mut report = Report::new("p", "1");
        report.add([Row::ok("a", "", "fine")]);
        assert_eq!(report.exit_code(), 0);
        report.add([Row::warn("b", "x", "so so", "look"), Row::ok("c", "", "fine")]);
        assert_eq!(report.exit_code(), 1);
        report.add([Row::fail("d", "y", "bad \x1b[2J", "mend")]);
        assert_eq!(report.exit_code(), 69);
        let table = report.table(&Terminal::default());
        assert_eq!(
            table,
            "OK    a    fine\nWARN  b x  so so\n      -> look\nOK    c    fine\nFAIL  d y  bad ?[2J\n      -> mend\n\n\
             2 OK, 1 WARN, 1 FAIL\n"
        );
        assert!(
            report.json().contains("\"verdict\": \"fail\""),
            "{}",
            report.json()
        );
        report.add_invalid_settings(&std::io::Error::other("line 1\nline 2"));
        assert_eq!(report.exit_code(), 64);
        assert_eq!(report.rows().len(), 6);
    }
}
