//! Tests over many seeded schedules, of which a failing one can be played again by itself.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Plays each of these seeds, or only `STANDIN_SEED` where that is set, and fails with the seed. Returns how many were played.
pub(crate) fn play(seeds: Range<u64>, mut one: impl FnMut(u64)) -> u64 {
    let seeds = match std::env::var("STANDIN_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("STANDIN_SEED is a number");
            seed..seed + u64::from(seeds.contains(&seed))
        }
        Err(_) => seeds,
    };
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let run = catch_unwind(AssertUnwindSafe(|| one(seed)));
        assert!(
            run.is_ok(),
            "seed {seed} fails; replay it with STANDIN_SEED={seed}"
        );
    }
    count
}
