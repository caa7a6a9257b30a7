//! The settings in force, each with its place; and `--print-config`, which shows them as TOML that can be used as a settings
//! file, with secrets masked.

use std::fmt::Write as _;

use super::entry::Entry;
use super::{Place, Places, Schema};

/// The settings in force, with the place of each value.
#[derive(Debug)]
pub struct Loaded<S> {
    /// The settings. They are valid.
    pub settings: S,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// Name of the settings file if no key is in it.
    pub empty_file: Option<String>,
    pub(super) entries: Vec<Entry>,
    pub(super) schema: &'static Schema,
}

impl<S> Loaded<S> {
    /// Returns whether the operator set `key`, in any layer.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        Places(&self.entries).of(key) != Place::Default
    }

    /// Returns all keys with their values as TOML. A value that is not the default is followed by a comment with its place.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::from("# Settings in force. A value without a comment is the default.\n");
        let mut section = "";
        for entry in &self.entries {
            let (of, key) = entry.split();
            if of != section {
                section = of;
                // Writing to a String cannot fail.
                let _ = writeln!(text, "\n[{section}]");
            }
            let _ = write!(
                text,
                "{key} = {}",
                self.schema.shown(&entry.item.key, &entry.item.value)
            );
            let _ = match &entry.item.place {
                Place::Default => writeln!(text),
                place => writeln!(text, "  # {place}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::of_text;
    use super::super::sample::Sample;

    #[test]
    fn the_output_is_a_settings_file_with_the_same_values() {
        let given = "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n[session]\nping_max = 7\n[publish]\n\
                     subject = [{ pattern = \"a.>\", in_doubt = \"resend\" }]\n[log]\nlevel = \"debug\"\n";
        let loaded = of_text::<Sample>("my.toml", given).unwrap();
        let printed = loaded.print();
        assert_eq!(
            of_text::<Sample>("again", &printed).unwrap().settings,
            loaded.settings,
            "{printed}"
        );
        assert!(printed.contains("ping_max = 7  # my.toml:3\n"), "{printed}");
        assert!(printed.contains("\nping_interval_secs = 120\n"), "{printed}");
    }

    #[test]
    fn secrets_are_masked() {
        let given = "[nodes]\nupstream = [\"nats://u:hunter2@h:4222\"]\n";
        let printed = of_text::<Sample>("my.toml", given).unwrap().print();
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(
            printed.contains("upstream = [\"nats://u:***@h:4222\"]"),
            "{printed}"
        );
    }
}
