//! Any bytes as the stream of a client: the frames found do not depend on how it is cut.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
#[allow(dead_code, reason = "each target asks a part of the oracle")]
mod oracle;

use libfuzzer_sys::fuzz_target;
use standin_wire::client::Client;

fuzz_target!(|input: &[u8]| oracle::fuzzed_stream::<Client>(input));
