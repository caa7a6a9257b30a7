//! Runs a test over many random seeds. A failing seed can be replayed alone (`STANDIN_SEED`), and more seeds can be played
//! (`STANDIN_SCHEDULES`).

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `one` for each seed. If `STANDIN_SEED` is set, runs only that seed, and only if it is in `seeds`. Panics with the number
/// of the first seed that fails. If `STANDIN_SCHEDULES` is set, it replaces the number of seeds. Returns the number of runs.
pub(crate) fn play(seeds: Range<u64>, mut one: impl FnMut(u64)) -> u64 {
    let number = |name| {
        let text = std::env::var(name).ok();
        text.map(|text: String| text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("STANDIN_SCHEDULES") {
        Some(count) => seeds.start..seeds.start + count,
        None => seeds,
    };
    let seeds = match number("STANDIN_SEED") {
        Some(seed) => seed..seed + u64::from(seeds.contains(&seed)),
        None => seeds,
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
