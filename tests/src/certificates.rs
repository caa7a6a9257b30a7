//! Certificates of a test: an authority, and the certificates that it makes.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// A folder with an authority and the certificates that it made.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority.
    #[expect(clippy::missing_panics_doc, reason = "a failure ends the test")]
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a folder for certificates");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each authority has a name of its own. With equal names, a certificate of the wrong authority would cause a different error: a
        // wrong signature instead of an unknown authority.
        params
            .distinguished_name
            .push(DnType::CommonName, folder.path().display().to_string());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        write(&folder.path().join("ca.pem"), &certificate.pem());
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// Returns the folder of all files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the file with the authority's own certificate.
    pub fn file(&self) -> String {
        path(&self.folder.path().join("ca.pem"))
    }

    /// Makes a certificate of `owner` for these host names and addresses. Returns the files of the certificate and its key. A second
    /// certificate of the same owner replaces the first.
    pub fn certify(&self, owner: &str, names: &[&str]) -> (String, String) {
        self.certify_with(owner, names, |_| {})
    }

    /// Makes a certificate as [`certify`](Self::certify) does, with changes.
    #[expect(clippy::missing_panics_doc, reason = "a failure ends the test")]
    pub fn certify_with(
        &self,
        owner: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names of a certificate");
        params.distinguished_name.push(DnType::CommonName, owner);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.folder.path().join(format!("{owner}.{end}"));
        write(&file("pem"), &certificate.pem());
        write(&file("key"), &key.serialize_pem());
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(file("key"), mode).expect("the mode of the key");
        (path(&file("pem")), path(&file("key")))
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
}

fn path(file: &Path) -> String {
    file.display().to_string()
}
