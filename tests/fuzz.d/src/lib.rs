//! Fuzz targets: every parser, and whole sessions of both programs. `tests/fuzz` runs them under libFuzzer, and the test in this file
//! runs each of them on its corpus, `corpus/NAME/`, with the normal compiler.
//!
//! A target panics if an assertion does not hold for its input. Targets that need what is private in a crate are in the module
//! `fuzzing` of that crate.
//!
//! | file | holds |
//! |---|---|
//! | this one | the table of targets |
//! | `settings` | settings files of both programs, and the files that they name: certificates and credentials |
//! | `url` | addresses with credentials |
//! | `oracle`, in the tests of the wire crate | frames and JSON of the NATS protocol |
//! | `main` | the program that `tests/fuzz` runs |

#[path = "../../../broker/wire/tests/oracle/mod.rs"]
#[allow(dead_code, reason = "the tests of the wire crate use the rest")]
mod oracle;
mod settings;
mod url;

use standin_wire::client::Client;
use standin_wire::server::Server;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All targets, each with its name, which is also that of the folder with its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    // The protocols.
    ("client_stream", |input| oracle::fuzzed_stream::<Client>(input)),
    ("server_stream", |input| oracle::fuzzed_stream::<Server>(input)),
    ("json", oracle::json),
    ("hello", standin_broker::fuzzing::hello),
    ("record", standin_registry::fuzzing::record),
    ("query", standin_broker::fuzzing::query),
    ("proxy_header", standin_proxy::fuzzing::proxy_header),
    // The files and the texts of operators.
    ("proxy_toml", settings::toml::<standin_proxy::Settings>),
    ("broker_toml", settings::toml::<standin_broker::Settings>),
    ("conf", settings::conf),
    ("certificates", settings::certificates),
    ("credentials", settings::credentials),
    ("url", url::url),
    // Whole sessions.
    ("sidecar_session", standin_proxy::fuzzing::session),
    ("broker_clients", standin_broker::fuzzing::sessions),
    ("broker_route", standin_broker::fuzzing::route),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Seeds of one target, in bytes. The corpus in the tree stays small; what a run of `tests/fuzz` finds is kept below target/.
    const CORPUS_BYTES_MAX: u64 = 16 * 1024;

    #[test]
    fn no_seed_of_the_corpus_is_a_finding() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, target) in TARGETS {
            target(b"");
            let (mut seeds, mut bytes) = (0, 0);
            let folder = fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            for file in folder {
                let path = file.expect("a file").path();
                let seed = fs::read(&path).expect("a seed");
                println!("{}", path.display());
                target(&seed);
                seeds += 1;
                bytes += seed.len() as u64;
            }
            assert!(
                seeds >= 2 && bytes <= CORPUS_BYTES_MAX,
                "{name}: {seeds} seeds, {bytes} bytes"
            );
        }
        assert_eq!(fs::read_dir(corpus).expect("the corpus").count(), TARGETS.len());
    }
}
