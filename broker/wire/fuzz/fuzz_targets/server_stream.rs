//! Fuzz target: the stream of a server that sends arbitrary bytes. The frames must not depend on how it is split into reads.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
#[allow(dead_code, reason = "each target uses a part of the oracle")]
mod oracle;

use libfuzzer_sys::fuzz_target;
use standin_wire::server::Server;

fuzz_target!(|input: &[u8]| oracle::fuzzed_stream::<Server>(input));
