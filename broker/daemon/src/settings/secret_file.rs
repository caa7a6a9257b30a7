//! Files that hold one secret, such as a token. Settings name them, so that the secret itself is in no settings file.

use std::fs;
use std::path::Path;

use super::SettingsError;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

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
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(SettingsError::Unusable {
            section,
            error: format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()),
        });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(Some(text.trim().to_owned()))
}
