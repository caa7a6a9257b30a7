//! The four layers: compiled-in defaults, the user's file, the environment, the flags.
//!
//! The compiled-in file defines the keys and their types, so a new key is added only in that file and in the struct.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use standin_tls::bounded_file;
use toml::{Table, Value};

use super::document::{self, Document, Item};
use super::entry::Entry;
use super::place::named_keys;
use super::suggestion::{hint, nearest};
use super::{Loaded, Place, Places, Schema, Settings, SettingsError, check, secret_file};

/// Maximum size of a settings file, in bytes. Tens of thousands of users fit.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// A value given on the command line. `Debug` hides it, because it may be a secret.
#[derive(Clone)]
pub struct Flag {
    /// `section.key`.
    pub key: &'static str,
    /// The flag, including its dashes.
    pub flag: &'static str,
    /// The value. Its type is that of the key. Each string in a list may contain several items separated by commas, as in
    /// the environment.
    pub value: Value,
}

impl fmt::Debug for Flag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} for {}", self.flag, self.key)
    }
}

/// Sources of the settings, in addition to the defaults. `Debug` hides the environment, which may contain secrets.
#[derive(Default)]
pub struct Input<'a> {
    /// The user's file (`--config`).
    pub file: Option<&'a Path>,
    /// The environment. Only the variables `STANDIN_…` and those of the schema are used.
    pub environment: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Vec<Flag>,
    /// Values that the given flags imply for keys that neither the file, the environment nor another flag sets.
    pub implied: Vec<Flag>,
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Input");
        shown.field("file", &self.file).field("flags", &self.flags);
        shown.finish_non_exhaustive()
    }
}

impl Input<'_> {
    /// Joins the layers and checks the result. Reads the user's file, but not the files whose paths are in the settings.
    ///
    /// # Errors
    /// [`SettingsError`], with all errors and their places.
    pub fn load<S: Settings>(&self) -> Result<Loaded<S>, SettingsError> {
        self.load_with(S::check_complete)
    }

    /// As [`load`](Self::load), without [`Settings::check_complete`]: for commands that do not run the program, and so need neither its
    /// sources of nodes nor all its files.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_incomplete<S: Settings>(&self) -> Result<Loaded<S>, SettingsError> {
        self.load_with(|_| Ok(()))
    }

    fn load_with<S: Settings>(
        &self,
        complete: impl FnOnce(&S) -> Result<(), SettingsError>,
    ) -> Result<Loaded<S>, SettingsError> {
        let mut layers = Layers::defaults(S::SCHEMA)?;
        if let Some(path) = self.file {
            match bounded_file::read_text(path, FILE_BYTES_MAX) {
                Ok(text) => layers.apply_file(path, &text),
                Err(error) => layers.errors.push(SettingsError::Unreadable {
                    what: "settings file",
                    path: path.to_owned(),
                    error,
                }),
            }
        }
        layers.apply_environment(&self.environment);
        layers.apply_flags(&self.flags);
        let unset = |flag: &&Flag| layers.is_default(flag.key);
        let implied: Vec<Flag> = self.implied.iter().filter(unset).cloned().collect();
        layers.apply_flags(&implied);
        for entry in &mut layers.entries {
            let resolved = secret_file::resolve(entry, &self.environment);
            layers.errors.extend(resolved.err());
        }
        layers
            .warnings
            .extend(secret_file::warnings(S::SCHEMA, &layers.entries));
        layers.finish(complete)
    }
}

/// Loads the defaults and one TOML text, without the environment and the flags. For tests, and for embedding the sidecar or
/// the broker in another program. Does not call [`Settings::check_complete`]. `name` is the name of the text in errors.
///
/// # Errors
/// Those of [`Input::load`].
pub fn of_text<S: Settings>(name: &str, text: &str) -> Result<Loaded<S>, SettingsError> {
    let mut layers = Layers::defaults(S::SCHEMA)?;
    layers.apply_text(name, text);
    layers.finish(|_| Ok(()))
}

struct Layers {
    schema: &'static Schema,
    entries: Vec<Entry>,
    warnings: Vec<String>,
    errors: Vec<SettingsError>,
    /// Whether all texts were parsed without syntax errors. If not, values are not compared with each other.
    is_complete: bool,
    /// Name of the user's file if no key is in it.
    empty_file: Option<String>,
}

impl Layers {
    fn defaults(schema: &'static Schema) -> Result<Self, SettingsError> {
        let Document { items, errors, .. } =
            document::parse(schema.defaults_file, schema.defaults, schema.tables);
        SettingsError::all(errors)?;
        let entry = |item: Item| Entry {
            default: item.value.clone(),
            item: Item::of(item.key, item.value, Place::Default),
        };
        Ok(Self {
            schema,
            entries: items.into_iter().map(entry).collect(),
            warnings: Vec::new(),
            errors: Vec::new(),
            is_complete: true,
            empty_file: None,
        })
    }

    fn entry(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.item.key == key)
    }

    fn is_default(&self, key: &str) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.item.key == key && entry.item.place == Place::Default)
    }

    fn has_section(&self, section: &str) -> bool {
        self.entries.iter().map(|entry| entry.split().0).any(|known| {
            let rest = known.strip_prefix(section);
            !section.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    fn apply_file(&mut self, path: &Path, text: &str) {
        let name = path.display().to_string();
        let is_named = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
        let Some(other) = self.schema.other_format.filter(|_| !is_named("toml")) else {
            return self.apply_text(&name, text);
        };
        if is_named("conf") {
            return self.apply_document(&name, other(&name, text));
        }
        let document = document::parse(&name, text, self.schema.tables);
        if document.is_well_formed {
            return self.apply_document(&name, document);
        }
        // If the text is valid in neither format, the TOML errors are reported.
        let otherwise = Some(other(&name, text)).filter(|document| document.is_well_formed);
        self.apply_document(&name, otherwise.unwrap_or(document));
    }

    fn apply_text(&mut self, name: &str, text: &str) {
        self.apply_document(name, document::parse(name, text, self.schema.tables));
    }

    fn apply_document(&mut self, name: &str, document: Document) {
        self.empty_file = document.items.is_empty().then(|| name.to_owned());
        self.errors.extend(document.errors);
        self.warnings.extend(document.warnings);
        self.is_complete &= document.is_complete;
        for (section, line) in document.sections {
            if !self.has_section(&section) {
                let known = self.entries.iter().map(|entry| entry.split().0);
                let listed = format!("the sections are listed in {}", self.schema.defaults_file);
                let hint = hint(nearest(&section, known, |known| known), &listed);
                let (place, key) = (Place::file(name, line), format!("[{section}]"));
                self.errors.push(SettingsError::unknown_key(place, key, hint));
            }
        }
        for item in document.items {
            let Some(entry) = self.entry(&item.key) else {
                // An unknown section is reported once, not for each of its keys.
                let (section, _) = item.key.rsplit_once('.').unwrap_or_default();
                if section.is_empty() || self.has_section(section) {
                    self.errors.push(self.unknown(&item.key, item.place));
                }
                continue;
            };
            entry.item = item;
        }
    }

    fn unknown(&self, key: &str, place: Place) -> SettingsError {
        let (section, inner) = key.rsplit_once('.').unwrap_or(("", key));
        let entries = self.entries.iter();
        let siblings = entries.clone().filter(|entry| entry.split().0 == section);
        let siblings = siblings.map(|entry| entry.item.key.as_str());
        let otherwise = match entries.map(Entry::split).find(|(_, name)| *name == inner) {
            Some(("", _)) => "it belongs above the first section".to_owned(),
            Some((other, _)) => format!("it belongs in [{other}]"),
            None => format!("the keys are listed in {}", self.schema.defaults_file),
        };
        let nearest = nearest(inner, siblings, |key| {
            key.rsplit_once('.').map_or(key, |(_, name)| name)
        });
        SettingsError::unknown_key(place, key.to_owned(), hint(nearest, &otherwise))
    }

    fn apply_environment(&mut self, environment: &[(String, String)]) {
        let variables = environment.iter();
        let variables: BTreeMap<&str, &str> = variables.map(|(name, value)| (&**name, &**value)).collect();
        for (name, key) in self.schema.variables {
            if let Some(value) = variables.get(name).filter(|value| !value.is_empty()) {
                self.apply_variable(key, name, value);
            }
        }
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("STANDIN_")) {
            let known = self.entries.iter().find(|entry| entry.variable() == **name);
            match known.map(|entry| entry.item.key.clone()) {
                // For a service `standin`, Kubernetes sets STANDIN_PORT, which is also the variable of the key `port`.
                Some(_) if name.ends_with("_PORT") && is_service_url(value) => {}
                Some(key) => self.apply_variable(&key, name, value),
                None if is_kubernetes_variable(name) => {}
                None => self.unknown_variable(name),
            }
        }
    }

    /// Handles a variable `STANDIN_…` that does not belong to a key. Reports an error if the rest of its name begins with the
    /// name of a section or resembles a key. Otherwise it may belong to another program, so this is only a warning.
    fn unknown_variable(&mut self, name: &str) {
        let rest = name.trim_start_matches("STANDIN_").to_lowercase();
        let (section, _) = rest.split_once('_').unwrap_or((&rest, ""));
        let in_section = self.has_section(section);
        let variables: Vec<String> = self.entries.iter().map(Entry::variable).collect();
        let known = variables.iter().map(String::as_str);
        let nearest = nearest(&rest.to_uppercase(), known, |variable| {
            variable.trim_start_matches("STANDIN_")
        });
        if !in_section && nearest.is_none() {
            self.warnings.push(format!(
                "environment variable {name} is not a setting of this program; ignored"
            ));
            return;
        }
        let form = format!(
            "the variables are STANDIN_<SECTION>_<KEY> of {}",
            self.schema.defaults_file
        );
        let (place, hint) = (Place::Variable(name.to_owned()), hint(nearest, &form));
        self.errors.push(SettingsError::unknown_key(place, rest, hint));
    }

    fn apply_variable(&mut self, key: &str, name: &str, text: &str) {
        let schema = self.schema;
        let Some(entry) = self.entry(key) else {
            return;
        };
        let place = Place::Variable(name.to_owned());
        let value = match &entry.default {
            Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
            Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
            Value::Array(_) if schema.tables.iter().any(|(name, _)| *name == key) => None,
            Value::Table(_) => None,
            Value::Array(_) => Some(check::list(text)),
            _ => Some(Value::String(text.to_owned())),
        };
        let Some(value) = value else {
            let error = check::wrong_type(schema, entry, place, &Value::String(text.to_owned()));
            self.errors.push(error);
            return;
        };
        entry.set(value, place);
    }

    fn apply_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            if let Some(entry) = self.entry(flag.key) {
                let value = match &flag.value {
                    Value::Array(items) => Value::Array(items.iter().flat_map(check::items).collect()),
                    value => value.clone(),
                };
                entry.set(value, Place::Flag(flag.flag));
            }
        }
    }

    /// Checks all values. An invalid value is reported and replaced by its default, so that the other values can be checked.
    /// Conflicts between its key and other keys are then not reported.
    fn finish<S: Settings>(
        mut self,
        complete: impl FnOnce(&S) -> Result<(), SettingsError>,
    ) -> Result<Loaded<S>, SettingsError> {
        let mut refused = Vec::new();
        for entry in &mut self.entries {
            if let Err(error) = check::entry(self.schema, entry) {
                self.errors.push(error);
                entry.set(entry.default.clone(), Place::Default);
                refused.push(entry.item.key.clone());
            }
        }
        // All values were checked above, so an error here is a bug.
        let settings = S::deserialize(self.table()).map_err(|error| SettingsError::Syntax {
            place: Place::Default,
            format: "TOML",
            message: error.message().to_owned(),
        })?;
        let is_valid = self.errors.is_empty();
        // If a line or a value could not be parsed, the settings are incomplete, and values are not compared.
        if self.is_complete {
            let conflicts = settings.check(&Places(&self.entries));
            let found = conflicts.and_then(|()| complete(&settings)).err();
            let found = found.into_iter().flat_map(SettingsError::each);
            self.errors.extend(found.filter(|error| match error {
                SettingsError::Missing(_) => is_valid,
                SettingsError::Conflict { rule, .. } => {
                    !named_keys(rule).any(|key| refused.iter().any(|refused| refused == key))
                }
                _ => true,
            }));
        }
        SettingsError::all(self.errors)?;
        Ok(Loaded {
            schema: self.schema,
            settings,
            warnings: self.warnings,
            empty_file: self.empty_file,
            entries: self.entries,
        })
    }

    /// Returns the values in force as one table, which is deserialized into the settings struct.
    fn table(&self) -> Table {
        let mut root = Table::new();
        for entry in &self.entries {
            let (section, key) = entry.split();
            let mut names = section.split('.').filter(|name| !name.is_empty());
            let table = names.try_fold(&mut root, |table, name| {
                let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
                inner.as_table_mut()
            });
            if let Some(table) = table {
                table.insert(key.to_owned(), entry.item.value.clone());
            }
        }
        root
    }
}

/// Returns whether the environment variable may come from Kubernetes, which sets variables named after the services of the
/// namespace. A service `standin` or `standin-nodes` must not prevent the start of a program.
fn is_kubernetes_variable(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP"]
            .iter()
            .any(|kind| name.contains(kind) && name.contains("_PORT_"))
}

/// Returns whether `value` is the address of a service (`tcp://10.0.0.1:4222`), to which Kubernetes sets variables `…_PORT`.
fn is_service_url(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme))
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
