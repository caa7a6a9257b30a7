//! Digest credentials for ZooKeeper, the same in both programs: `nodes.zookeeper_auth` holds them, or
//! `nodes.zookeeper_auth_file` names a file with them.
//!
//! The file keeps the password out of a settings file that many people can read. [`ZooKeeperAuth::check`] does not read
//! the file; [`ZooKeeperAuth::read`] does.

use std::path::Path;

use standin_tls::bounded_file;

use super::secret_file::FILE_BYTES_MAX;
use super::{MASK, Place, Places, Secret, SettingsError, mask_given, masked_pair, refused};

/// The two settings for ZooKeeper credentials, `user:password` each. At most one of them may be set.
#[derive(Debug, Clone, Copy)]
pub struct ZooKeeperAuth<'s> {
    credentials: &'s Secret,
    file: &'s Path,
}

impl<'s> ZooKeeperAuth<'s> {
    /// The key of the credentials.
    pub const KEY: &'static str = "nodes.zookeeper_auth";

    /// Joins the values of `nodes.zookeeper_auth` and `nodes.zookeeper_auth_file`.
    #[must_use]
    pub const fn new(credentials: &'s Secret, file: &'s Path) -> Self {
        Self { credentials, file }
    }

    /// Checks the form of `nodes.zookeeper_auth`: `user:password`, or empty.
    ///
    /// # Errors
    /// [`SettingsError::Value`] for another form; [`SettingsError::Conflict`] for the masked form that `--print-config` prints.
    pub fn check_text(place: &Place, text: &str) -> Result<(), SettingsError> {
        let masked = masked_pair(text);
        if text.contains(MASK) && masked == text {
            return Err(mask_given(Self::KEY, place));
        }
        if text.is_empty() || text.contains(':') {
            return Ok(());
        }
        Err(refused(Self::KEY, place, "user:password, or empty", &masked))
    }

    /// Checks that at most one of the two settings is set.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`].
    pub fn check(self, places: &Places<'_>) -> Result<(), SettingsError> {
        if self.credentials.is_empty() || self.file.as_os_str().is_empty() {
            return Ok(());
        }
        let rule = "nodes.zookeeper_auth and nodes.zookeeper_auth_file are both set; keep one";
        Err(places.conflict(Self::KEY, rule.to_owned()))
    }

    /// Returns the credentials, or `None` if neither setting is set. Reads the file if one is named: its first line is
    /// `user:password`. Whitespace at both ends of the line is ignored.
    ///
    /// # Errors
    /// [`SettingsError::Unreadable`] for the file; [`SettingsError::Conflict`] at its first line.
    pub fn read(self) -> Result<Option<String>, SettingsError> {
        if self.file.as_os_str().is_empty() {
            let credentials = self.credentials.reveal().to_owned();
            return Ok(Some(credentials).filter(|credentials| !credentials.is_empty()));
        }
        let text = bounded_file::read_text(self.file, FILE_BYTES_MAX).map_err(|error| {
            SettingsError::Unreadable {
                what: "ZooKeeper credentials file",
                path: self.file.to_owned(),
                error,
            }
        })?;
        let line = text.lines().next().unwrap_or_default().trim();
        if line.contains(':') {
            return Ok(Some(line.to_owned()));
        }
        Err(SettingsError::Conflict {
            place: Place::file(&self.file.display().to_string(), 1),
            rule: "the first line of nodes.zookeeper_auth_file must be user:password".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn credentials_without_a_colon_or_with_a_masked_password_are_refused() {
        let place = Place::Flag("--x");
        let check = |text| ZooKeeperAuth::check_text(&place, text);
        for good in ["", "u:p", "u:", ":p", "u:p:q"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let error = check("hunter2").unwrap_err().to_string();
        assert!(
            error.contains("user:password") && !error.contains("hunter2"),
            "{error}"
        );
        for mask in ["u:***", "***"] {
            assert_eq!(check(mask).unwrap_err().kind(), "conflict", "{mask}");
        }
    }

    #[test]
    fn credentials_come_from_the_settings_or_else_from_the_first_line_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth");
        let (none, some) = (Secret::from(""), Secret::from("u:p"));
        let read = |credentials, file| ZooKeeperAuth::new(credentials, file).read();
        assert_eq!(read(&none, Path::new("")).unwrap(), None);
        assert_eq!(read(&some, Path::new("")).unwrap().as_deref(), Some("u:p"));
        let error = read(&none, &path).unwrap_err();
        assert_eq!(error.kind(), "unreadable");
        fs::write(&path, " zk:pass \nmore\n").unwrap();
        assert_eq!(read(&none, &path).unwrap().as_deref(), Some("zk:pass"));
        fs::write(&path, "nonsense\n").unwrap();
        let error = read(&none, &path).unwrap_err().to_string();
        assert!(error.contains("auth:1: the first line"), "{error}");
    }
}
