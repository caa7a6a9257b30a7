//! Files with secrets, so that no secret needs to be in a settings file: reading one, where they are, and who else can read them.
//!
//! The path of a key that ends with `_file` may begin with `$CREDENTIALS_DIRECTORY/`, the folder in which systemd puts the files that
//! `LoadCredential` of a unit names.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::entry::Entry;
use super::{Item, Place, Schema, SettingsError};
use standin_tls::bounded_file;
use toml::Value;
use zeroize::Zeroizing;

/// Variable that systemd sets.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Maximum size of a file with a secret, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Returns the content of a file without whitespace at its ends; `None` if `path` is empty. `what` is the kind of the file and
/// `section` its section of the settings, for errors.
///
/// # Errors
/// [`SettingsError`], which names the file.
pub fn secret_file(
    what: &'static str,
    section: &'static str,
    path: &Path,
) -> Result<Option<String>, SettingsError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let unreadable = |error| SettingsError::Unreadable {
        what,
        path: path.to_owned(),
        error,
    };
    let text = Zeroizing::new(bounded_file::read_text(path, FILE_BYTES_MAX).map_err(unreadable)?);
    let text = text.trim();
    if text.is_empty() {
        return Err(SettingsError::Unusable {
            section,
            error: format!("{} is empty: write the secret into it", path.display()),
        });
    }
    Ok(Some(text.to_owned()))
}

/// Replaces the variable in the paths of the key, also inside tables, if it is there.
pub(super) fn resolve(entry: &mut Entry, environment: &[(String, String)]) -> Result<(), SettingsError> {
    let Item {
        key,
        name,
        value,
        place,
        ..
    } = &mut entry.item;
    let folder = environment.iter().find(|(name, _)| name == VARIABLE);
    let mut is_missing = false;
    each_text(key, value, &mut |key, text| {
        let rest = text
            .strip_prefix('$')
            .and_then(|text| text.strip_prefix(VARIABLE));
        let Some(rest) = rest.filter(|rest| key.ends_with("_file") && rest.starts_with('/')) else {
            return;
        };
        match folder {
            Some((_, folder)) => *text = format!("{folder}{rest}"),
            None => is_missing = true,
        }
    });
    if !is_missing {
        return Ok(());
    }
    Err(SettingsError::Conflict {
        place: place.clone(),
        rule: format!(
            "{name} begins with ${VARIABLE}, which only systemd sets: give the unit LoadCredential=, or give the path of the file"
        ),
    })
}

/// Calls `each` for each text of a value, with the key of the text. The key of a text in a table is that of the table, a dot, and the name
/// inside.
fn each_text(key: &str, value: &mut Value, each: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => each(key, text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(key, item, each)),
        Value::Table(table) => {
            for (inner, value) in table {
                each_text(&format!("{key}.{inner}"), value, each);
            }
        }
        _ => {}
    }
}

/// Returns a warning for each file that has secrets and can be read by users that need not read it: the files that the secret keys name,
/// and the settings files in which a secret is written.
pub(super) fn warnings(schema: &Schema, entries: &[Entry]) -> Vec<String> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut add = |what: String, path: &str| {
        if !files.iter().any(|(_, known)| known == path) {
            files.push((what, path.to_owned()));
        }
    };
    for Entry { item, .. } in entries {
        each_text(&item.key, &mut item.value.clone(), &mut |key, path| {
            if schema.secret_files.contains(&key) {
                add(format!("the file of {}", item.name), path);
            }
        });
        if let Place::File(file, _) = &item.place
            && schema.has_secret(&item.key, &item.value)
        {
            add(format!("the settings file with {}", item.name), file);
        }
    }
    let warnings = files.iter().filter_map(|(what, path)| warning(what, path));
    warnings.collect()
}

/// Returns the warning about one file. A file of this process's own user needs no other reader. A file of another user, such as root, is
/// read as a member of its group, so that the group is no fault: systemd and Kubernetes give secrets to a program in this way.
fn warning(what: &str, path: &str) -> Option<String> {
    let file = fs::metadata(Path::new(path)).ok()?;
    let is_own = file.uid() == rustix::process::geteuid().as_raw();
    let (fault, readers) = if is_own {
        (0o077, "its group or others")
    } else {
        (0o007, "everybody")
    };
    let mode = file.mode() & 0o777;
    (mode & fault != 0).then(|| {
        format!("{what}, {path}, has mode {mode:04o}: {readers} can read the secret; run `chmod 600 {path}`")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::sample::Sample;
    use super::super::{Input, Loaded};
    use super::*;

    fn load(
        folder: &Path,
        text: &str,
        environment: &[(&str, &str)],
    ) -> Result<Loaded<Sample>, SettingsError> {
        let path = folder.join("settings.toml");
        fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Input {
            file: Some(&path),
            environment: environment.collect(),
            ..Input::default()
        }
        .load()
    }

    #[test]
    fn a_file_with_a_secret_that_others_can_read_gives_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "x").unwrap();
        let text = format!("[nodes]\nupstream = [\"nats://u:hunter2@h\"]\nsecret_file = {secret:?}\n");
        for (mode, faults) in [(0o600, 0), (0o400, 0), (0o640, 2), (0o604, 2)] {
            load(folder.path(), &text, &[]).unwrap();
            for name in ["secret", "settings.toml"] {
                fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            let path = folder.path().join("settings.toml");
            let input = Input {
                file: Some(&path),
                ..Input::default()
            };
            let warnings = input.load::<Sample>().unwrap().warnings;
            assert_eq!(warnings.len(), faults, "{mode:o}: {warnings:?}");
            let shown = format!("has mode {mode:04o}");
            assert!(
                warnings
                    .iter()
                    .all(|text| text.contains(&shown) && text.contains("chmod 600"))
            );
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let without = load(folder.path(), "[nodes]\nupstream = [\"nats://h\"]\n", &[]).unwrap();
        assert!(without.warnings.is_empty(), "no secret is in this file");
    }

    #[test]
    fn a_file_without_a_secret_or_without_an_end_is_refused() {
        for (path, problem) in [
            ("/dev/null", "is empty"),
            ("/dev/zero", "larger than 65536 bytes"),
        ] {
            let error = secret_file("file of x", "x", Path::new(path)).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn a_path_may_name_a_credential_of_systemd() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[nodes]\nupstream = [\"nats://h\"]\nsecret_file = \"$CREDENTIALS_DIRECTORY/zk\"\n";
        let loaded = load(folder.path(), text, &[("CREDENTIALS_DIRECTORY", "/run/c")]).unwrap();
        assert_eq!(loaded.settings.nodes.secret_file, "/run/c/zk");
        let error = load(folder.path(), text, &[]).unwrap_err().to_string();
        assert!(
            error.contains("settings.toml:3: nodes.secret_file") && error.contains("LoadCredential"),
            "{error}"
        );
    }
}
