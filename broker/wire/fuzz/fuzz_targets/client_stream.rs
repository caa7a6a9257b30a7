//! Fuzz target: a client that sends arbitrary bytes. The frames must not depend on how its stream is split into reads.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
#[allow(dead_code, reason = "each target uses a part of the oracle")]
mod oracle;

use libfuzzer_sys::fuzz_target;
use standin_wire::client::Client;

fuzz_target!(|input: &[u8]| oracle::fuzzed_stream::<Client>(input));
