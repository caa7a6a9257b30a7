//! Fuzz target: a route to a node that sends arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| standin_broker::fuzzing::route(input));
