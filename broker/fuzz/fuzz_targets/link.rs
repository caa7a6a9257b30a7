//! One link to another node that sends any bytes: what must hold of a node holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| standin_broker::fuzzing::link(input));
