//! Simulation of whole meshes in one process, in virtual time and under seeded schedules of faults: connections that are slow, silent or
//! cut, nodes that freeze and restart, partitions, nodes that start and dial each other at the same time. Only sockets, timers and tasks
//! are replaced; all other code is that of the broker. After the last fault, each node must know the interest of all others.
//!
//! A failing seed is printed; `STANDIN_SEED=… cargo test -p standin-broker schedules` repeats it.

mod cost;
mod moves;
mod node;
mod truth;
mod world;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::world::World;
use crate::seeds;

/// Interval of the PINGs on a silent route. The timeout is twice as long.
const PING_INTERVAL_MS: u64 = 300;
/// Numbers of schedules with few nodes, and with more.
const SMALL: u64 = 1500;
const LARGE: u64 = 12;

/// Plays one schedule: a period with faults, a period without, then the checks. Returns the number of flushes.
fn play(seed: u64, nodes: usize) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(nodes, seed, PING_INTERVAL_MS, &mut rng);
    for _ in 0..rng.random_range(20..120) {
        world.disturb(&mut rng);
        for _ in 0..rng.random_range(1..15) {
            world.step(&mut rng);
        }
    }
    world.heal();
    // Silent connections are found by PING.
    (0..150).for_each(|_| world.step(&mut rng));
    let whole = (0..2000).any(|_| {
        world.step(&mut rng);
        world.is_quiet() && world.is_whole()
    });
    assert!(whole, "the mesh does not become whole: {}", world.picture());
    // Messages in flight arrive, and sizes of groups are announced.
    (0..60).for_each(|_| world.step(&mut rng));
    world.check_pictures();
    if seed.is_multiple_of(3) {
        world.check_moves(&mut rng);
        (0..60).for_each(|_| world.step(&mut rng));
    }
    for _ in 0..5 {
        world.check_a_publish(&mut rng);
    }
    world.flushes
}

fn play_all(seeds: std::ops::Range<u64>, nodes: fn(u64) -> usize) {
    let mut flushes = 0;
    let played = seeds::play(seeds, |seed| flushes += play(seed, nodes(seed)));
    println!("{flushes} flushes in {played} schedules");
    assert!(
        played <= 1 || flushes > 10 * played,
        "too few flushes for a test: {flushes}"
    );
}

#[test]
fn after_any_faults_each_node_of_a_small_mesh_knows_the_interest_of_all_others() {
    play_all(0..SMALL, |seed| 2 + seed as usize % 4);
}

#[test]
fn after_any_faults_each_node_of_a_larger_mesh_knows_the_interest_of_all_others() {
    play_all(10_000..10_000 + LARGE, |seed| 8 + seed as usize % 8);
}
