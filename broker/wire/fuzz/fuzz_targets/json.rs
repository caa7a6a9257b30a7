//! Fuzz target: arbitrary bytes as the JSON of INFO and of CONNECT.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
#[allow(dead_code, reason = "each target uses a part of the oracle")]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| oracle::json(input));
