//! Cost of a full mesh, for few nodes and for many: the table of `deploy/mesh.md`.
//! `cargo test -p standin-broker what_a_mesh_costs -- --nocapture` prints it.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::world::World;

const SUBSCRIPTIONS: usize = 200;

/// So long that no PING is sent to check a silent route.
const PING_INTERVAL_MS: u64 = 600_000;

fn bytes_sent(world: &World) -> usize {
    world.nodes.iter().map(|node| node.bytes_sent).sum()
}

/// Returns the number of bytes that are sent because of `act`.
fn bytes_of(world: &mut World, rng: &mut StdRng, act: impl FnOnce(&mut World)) -> usize {
    let before = bytes_sent(world);
    act(world);
    (0..40).for_each(|_| world.step(rng));
    bytes_sent(world) - before
}

/// Measures a mesh of this many nodes, and prints its row of the table.
fn measure(nodes: usize) {
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
        let took = world.now.duration_since(start);
        assert!(took.as_secs() < 60, "{}", world.picture());
    }
    let whole_ms = world.now.duration_since(start).as_millis();
    let sync_kib = bytes_sent(&world) / nodes / 1024;
    (0..40).for_each(|_| world.step(&mut rng));
    world.check_pictures();
    let routes = world.nodes.iter().map(|node| node.ends.len()).sum::<usize>() / 2;
    assert_eq!(routes, nodes * (nodes - 1) / 2);
    let subscribe = |world: &mut World| drop(world.nodes[0].subscribe("orders.new", None));
    // For each peer: the frame itself, and the PING and PONG of the client's flush.
    let first = bytes_of(&mut world, &mut rng, subscribe);
    let (frame, peers) = ("orders.new".len() + 5, nodes - 1);
    let expected = peers * frame..=peers * (frame + 10);
    assert!(expected.contains(&first), "{first} bytes");
    // For another client with the same subject only PING and PONG are sent, because the peers know the subject.
    let again = bytes_of(&mut world, &mut rng, subscribe);
    assert!((8 * peers..=10 * peers).contains(&again), "{again} bytes");
    let more = bytes_of(&mut world, &mut rng, |world| {
        let client = Arc::clone(&world.nodes[0].subscriptions[0].client);
        (0..10_000).for_each(|_| world.nodes[0].subscribe_more(&client, "orders.new"));
    });
    assert_eq!(more, 0, "bytes for more subscriptions");
    eprintln!("| {nodes} | {routes} | {whole_ms} ms | {sync_kib} KiB | {first} bytes | {again} bytes |");
}

#[test]
fn what_a_mesh_costs() {
    eprintln!(
        "| nodes | routes in the cluster | mesh complete after | sent by each node until then \
         | one subscription more, whole cluster | one client more on the same subject |"
    );
    eprintln!("|---|---|---|---|---|---|");
    [3, 10, 30, 100].into_iter().for_each(measure);
}
