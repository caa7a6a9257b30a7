//! Settings files of both programs, and the files that they name.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use standin_daemon::settings::{Input, Settings, of_text};
use standin_tls::acceptor::Acceptor;
use standin_tls::dialler::Dialler;
use standin_tls::files::{Files, MinVersion};
use tempfile::TempDir;

/// Loads a text in TOML. What `--print-config` prints of it must have the same values, unless secrets are masked.
pub(crate) fn toml<S: Settings + Debug + PartialEq>(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(loaded) = of_text::<S>("settings.toml", text) {
        let printed = loaded.print();
        match of_text::<S>("printed.toml", &printed) {
            Ok(again) => assert_eq!(again.settings, loaded.settings, "{printed}"),
            Err(error) => assert!(printed.contains("***"), "{error}\n{printed}"),
        }
    }
}

/// Loads a file in the format of `nats-server`, also the files that it includes.
pub(crate) fn conf(input: &[u8]) {
    with_file("fuzz.conf", input, |file| {
        let input = Input {
            file: Some(file),
            ..Input::default()
        };
        if let Ok(loaded) = input.load::<standin_broker::Settings>() {
            let _ = loaded.print();
        }
    });
}

/// Uses a file as certificate, key and authorities.
pub(crate) fn certificates(input: &[u8]) {
    with_file("all.pem", input, |file| {
        let files = Files {
            cert: file.to_owned(),
            key: file.to_owned(),
            authorities: file.to_owned(),
        };
        let _ = Acceptor::new(&files, true, MinVersion::Tls12);
        let _ = Dialler::new(&files, true, MinVersion::Tls13);
        let _ = files.expires_at();
    });
}

/// Uses a file as each of the files with credentials of the sidecar.
pub(crate) fn credentials(input: &[u8]) {
    static SETTINGS: LazyLock<standin_proxy::Settings> = LazyLock::new(|| {
        let text = "[nodes]\nupstream = [\"host\"]\nzookeeper = \"host\"\n[credentials]\nuser = \"a\"\n";
        standin_proxy::Settings::from_toml(text).expect("valid settings")
    });
    with_file("secret", input, |file| {
        for number in 0..4 {
            let mut settings = SETTINGS.clone();
            let credentials = &mut settings.credentials;
            let setting = match number {
                0 => &mut credentials.creds_file,
                1 => &mut credentials.nkey_seed_file,
                2 => &mut credentials.password_file,
                _ => &mut settings.nodes.zookeeper_auth_file,
            };
            *setting = file.to_owned();
            if number < 2 {
                settings.credentials.user.clear();
            }
            let _ = settings.check_complete();
        }
    });
}

/// Calls `check` with the path of a file that has these bytes.
fn with_file(name: &str, bytes: &[u8], check: impl FnOnce(&Path)) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("the file is written");
    check(&path);
}
