//! The program that `tests/fuzz` runs: libFuzzer with the target that the environment variable `FUZZ_TARGET` names. One program serves
//! all targets, because linking a program for each target would take too long.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names = || fuzz::TARGETS.map(|(name, _)| name).join(" ");
    let target = fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    target
        .unwrap_or_else(|| panic!("FUZZ_TARGET must be one of: {}", names()))
        .1
});

fuzz_target!(|input: &[u8]| (*TARGET)(input));
