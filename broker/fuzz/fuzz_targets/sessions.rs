//! Whole sessions of three clients from any bytes: what must hold of a server holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| standin_broker::fuzzing::sessions(input));
