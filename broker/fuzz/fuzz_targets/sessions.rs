//! Fuzz target: sessions of three clients that send arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| standin_broker::fuzzing::sessions(input));
