//! What a full mesh costs, for few nodes and for many: the table of `deploy/mesh.md`.
//! `cargo test -p standin-broker what_a_mesh_costs -- --nocapture` prints it.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::world::World;

const SUBSCRIPTIONS: usize = 200;

/// No PING is sent.
const PING_INTERVAL_MS: u64 = 600_000;

struct Cost {
    routes: usize,
    whole_ms: u128,
    sync_bytes: usize,
    subscribe_bytes: usize,
    again_bytes: usize,
    more_bytes: usize,
}

fn bytes(world: &World) -> usize {
    world.nodes.iter().map(|node| node.bytes_sent).sum()
}

/// What is sent because of `act`.
fn sent(world: &mut World, rng: &mut StdRng, act: impl FnOnce(&mut World)) -> usize {
    let before = bytes(world);
    act(world);
    (0..40).for_each(|_| world.step(rng));
    bytes(world) - before
}

fn measure(nodes: usize) -> Cost {
    let mut rng = StdRng::seed_from_u64(nodes as u64);
    let mut world = World::new(nodes, nodes as u64, PING_INTERVAL_MS, &mut rng);
    for node in 0..nodes {
        for number in 0..SUBSCRIPTIONS {
            world.nodes[node].subscribe(&format!("orders.{node}.{number}"), None);
        }
    }
    let start = world.now;
    while !(world.is_quiet() && world.is_whole()) {
        world.step(&mut rng);
        assert!(
            world.now.duration_since(start).as_secs() < 60,
            "{}",
            world.picture()
        );
    }
    let whole_ms = world.now.duration_since(start).as_millis();
    let sync_bytes = bytes(&world) / nodes;
    (0..40).for_each(|_| world.step(&mut rng));
    world.check_pictures();
    let routes = world.nodes.iter().map(|node| node.ends.len()).sum::<usize>() / 2;
    let subscribe = |world: &mut World| {
        world.nodes[0].subscribe("orders.new", None);
    };
    let subscribe_bytes = sent(&mut world, &mut rng, subscribe);
    // A client more with the same subject.
    let again_bytes = sent(&mut world, &mut rng, subscribe);
    // Ten thousand subscriptions more with the same subject.
    let more_bytes = sent(&mut world, &mut rng, |world| {
        let client = Arc::clone(&world.nodes[0].subscriptions[0].client);
        (0..10_000).for_each(|_| world.nodes[0].subscribe_more(&client, "orders.new"));
    });
    Cost {
        routes,
        whole_ms,
        sync_bytes,
        subscribe_bytes,
        again_bytes,
        more_bytes,
    }
}

#[test]
fn what_a_mesh_costs() {
    eprintln!(
        "| nodes | links | whole after | sent by each node until then | one subscription more | one client more on the same |"
    );
    eprintln!("|---|---|---|---|---|---|");
    for nodes in [3, 10, 30, 100] {
        let cost = measure(nodes);
        assert_eq!(cost.routes, nodes * (nodes - 1) / 2);
        // The frame itself, and a question and an answer for the one who waits for it.
        let frame = "orders.new".len() + 5;
        assert!(
            (nodes - 1) * frame <= cost.subscribe_bytes && cost.subscribe_bytes <= (nodes - 1) * (frame + 10),
            "{} bytes",
            cost.subscribe_bytes
        );
        assert_eq!(
            cost.more_bytes, 0,
            "to others, ten thousand subscriptions with the same subject are one"
        );
        // A new client asks once what is on its way. Of its interest nothing is said: others know the subject.
        let questions = 8 * (nodes - 1)..=10 * (nodes - 1);
        assert!(
            questions.contains(&cost.again_bytes),
            "{} bytes",
            cost.again_bytes
        );
        eprintln!(
            "| {nodes} | {} | {} ms | {} KiB | {} bytes | {} bytes |",
            cost.routes,
            cost.whole_ms,
            cost.sync_bytes / 1024,
            cost.subscribe_bytes,
            cost.again_bytes
        );
    }
}
