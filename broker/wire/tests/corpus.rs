//! All seeds of the fuzz targets, checked by the oracle with the stable compiler. Streams are also split at every byte.

use std::path::Path;

use crate::oracle;
use standin_wire::client::Client;
use standin_wire::server::Server;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz.d/corpus")
        .join(target);
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            entry
                .and_then(|entry| std::fs::read(entry.path()))
                .expect("a readable seed")
        })
        .collect();
    assert!(seeds.len() >= 10, "{}: {} seeds", folder.display(), seeds.len());
    seeds.push(Vec::new());
    seeds
}

fn check_stream<D: oracle::Side>(target: &str) {
    for seed in seeds(target) {
        oracle::fuzzed_stream::<D>(&seed);
        let stream = seed.get(1..).unwrap_or_default();
        for cut in 1..stream.len() {
            oracle::stream::<D>(stream, &[cut], oracle::LIMITS);
        }
    }
}

#[test]
fn client_seeds_give_the_same_frames_wherever_they_are_split() {
    check_stream::<Client>("client_stream");
}

#[test]
fn server_seeds_give_the_same_frames_wherever_they_are_split() {
    check_stream::<Server>("server_stream");
}

#[test]
fn streams_of_the_other_side_cause_no_panic() {
    for seed in seeds("client_stream") {
        oracle::fuzzed_stream::<Server>(&seed);
    }
    for seed in seeds("server_stream") {
        oracle::fuzzed_stream::<Client>(&seed);
    }
}

#[test]
fn json_seeds_are_parsed_edited_and_shortened() {
    for seed in seeds("json") {
        oracle::json(&seed);
    }
}
