//! Watch on the certificate files of all doors: files that change are read again, and certificates that expire soon are logged.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use standin_tls::files::{Files, TlsError};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Interval at which the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between two warnings about a certificate that expires soon.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Time before the expiry of a certificate from which on warnings are logged.
const WARN_SECS_BEFORE: i64 = 30 * 24 * 3600;

/// The doors that speak TLS, each with its name in the settings, such as `tls.client`, and its files.
pub type Doors = Vec<(String, Files)>;

/// Watch on the certificate files of all doors.
#[derive(Debug)]
pub struct CertificateWatch {
    doors: Doors,
    /// The state of each file when it was last looked at.
    seen: Vec<Option<(SystemTime, u64)>>,
    warn_at: Instant,
}

impl CertificateWatch {
    /// Watches the files of `doors` from now on.
    #[must_use]
    pub fn new(doors: Doors) -> Self {
        Self {
            seen: states(&doors),
            doors,
            warn_at: Instant::now(),
        }
    }

    /// Returns when a file has changed: a new version of it, or one that was missing. Logs the certificates that expire soon, once a
    /// day.
    pub async fn changed(&mut self) {
        loop {
            if Instant::now() >= self.warn_at {
                self.warn_at += WARN_INTERVAL;
                for (door, files) in &self.doors {
                    if let Some((message, days)) = expiring(files) {
                        warn!(door, days, "{message}: {}", files.cert.display());
                    }
                }
            }
            sleep(LOOK_INTERVAL).await;
            let now = states(&self.doors);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Returns the expiry of each door's certificate, in seconds since 1970, for a metric.
///
/// # Errors
/// [`TlsError`], which names the file.
pub fn expiries(doors: &Doors) -> Result<Vec<(String, i64)>, TlsError> {
    let expiry =
        |(door, files): &(String, Files)| Some(files.expires_at().transpose()?.map(|at| (door.clone(), at)));
    doors.iter().filter_map(expiry).collect()
}

fn states(doors: &Doors) -> Vec<Option<(SystemTime, u64)>> {
    let files = doors
        .iter()
        .flat_map(|(_, files)| [&files.cert, &files.key, &files.authorities]);
    files.map(|file| state(file)).collect()
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Returns a warning for each door whose certificate has expired or expires soon.
#[must_use]
pub fn warnings(doors: &Doors) -> Vec<String> {
    let warning = |(door, files): &(String, Files)| {
        let (message, days) = expiring(files)?;
        Some(format!(
            "{message}: {} door={door} days={days}",
            files.cert.display()
        ))
    };
    doors.iter().filter_map(warning).collect()
}

/// Returns the warning about a certificate that has expired or expires soon, and the whole days that are left: less than 0 from the moment
/// of the expiry.
pub(crate) fn expiring(files: &Files) -> Option<(&'static str, i64)> {
    let expires_at = files.expires_at().ok()??;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left_secs = expires_at - i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let days = left_secs.div_euclid(24 * 3600);
    if left_secs < 0 {
        Some(("certificate has expired, replace it", days))
    } else if left_secs < WARN_SECS_BEFORE {
        Some(("certificate expires soon, replace it", days))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_file_changes_when_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            cert: folder.path().join("cert"),
            ..Files::default()
        };
        let mut doors = vec![("tls.client".to_owned(), files)];
        let missing = states(&doors);
        std::fs::write(&doors[0].1.cert, "one").unwrap();
        let written = states(&doors);
        assert_ne!(missing, written);
        assert_eq!(written, states(&doors));
        std::fs::write(&doors[0].1.cert, "three").unwrap();
        assert_ne!(written, states(&doors));
        doors.clear();
        assert!(states(&doors).is_empty());
    }
}
