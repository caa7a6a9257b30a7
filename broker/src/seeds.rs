//! Runs a test over many random seeds. A failing seed can be replayed alone.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `one` for each seed. If `STANDIN_SEED` is set, runs only that seed, and only if it is in `seeds`. Panics with the number
/// of the first seed that fails. Returns the number of runs.
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
