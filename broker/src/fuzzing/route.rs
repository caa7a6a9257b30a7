//! A route to a node that sends arbitrary bytes, local clients with subscriptions, and the invariants that must hold. Used by the fuzz
//! target `broker_route` and by a test with random frames.

use std::sync::Arc;

use super::World;
use crate::mesh::session::RouteSession;
use crate::shell::Session;

/// Runs a route session with `input`: one byte for the size of reads, then the bytes that the peer sends.
///
/// # Panics
/// If an invariant is violated: clients get only whole frames, and no interest of the peer is left after the route ends.
pub fn route(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else {
        return;
    };
    let mut world = World::new(false);
    world.send(0, b"SUB a 1\r\nSUB > 2\r\n");
    world.send(1, b"SUB a.* q 1\r\n");
    world.send(2, b"SUB a.> q 1\r\nUNSUB 1 3\r\n");
    let shared = Arc::clone(&world.shared);
    let (mut session, mut events) = RouteSession::unconnected(&shared);
    let mut buffer = Vec::new();
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        buffer.extend_from_slice(piece);
        world.router.begin_turn();
        let taken = session.take(&buffer, &mut world.router);
        world.check_staged();
        world.router.stage.flush();
        while session.held_until().is_some() {
            events.try_recv().expect("a held route has a full queue");
        }
        match taken {
            Ok(taken) => drop(buffer.drain(..taken)),
            Err(_) => break,
        }
    }
    drop(events);
    drop(session);
    let left = shared.interest.remote.len();
    assert_eq!(left, 0, "interest is left after the route ended");
    assert!(shared.interest.routes.load().is_empty());
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use standin_wire::client::Publish;

    use super::*;
    use crate::route::frame;
    use crate::seeds;

    const SEEDS: u64 = 2000;

    /// Appends a frame as nodes send it, sometimes damaged.
    fn put(rng: &mut SmallRng, out: &mut Vec<u8>) {
        let start = out.len();
        let subjects: [&[u8]; 8] = [b"a", b"a.b", b"a.*", b">", b"b.c", b"a b", b"a\nb", b""];
        let subject = subjects[rng.random_range(0..subjects.len())];
        let queue: Option<&[u8]> = [None, Some(&b"q"[..]), Some(&b""[..])][rng.random_range(0..3)];
        let payload = vec![b'x'; [0, 1, 5, 300, 9000][rng.random_range(0..5)]];
        match rng.random_range(0..9) {
            0..=2 => frame::put_interest(out, subject, queue, rng.random_range(0_u32..6).checked_sub(1)),
            3 => frame::put_token(out, frame::PING, rng.random()),
            4 => frame::put_token(out, frame::PONG, rng.random()),
            5 => out.extend(match rng.random_range(0..3) {
                0 => frame::cut(rng.random_range(0..3), "run"),
                1 => frame::mark(rng.random_range(0..3), rng.random_range(0..3)),
                _ => frame::cut_done(rng.random_range(0..3)),
            }),
            6 => frame::put(out, rng.random_range(0..20), &payload[..payload.len().min(5)]),
            _ => {
                let mut names = Vec::new();
                (0..rng.random_range(0..3)).for_each(|_| frame::text(&mut names, queue.unwrap_or(b"r")));
                let reply = rng.random_bool(0.3).then_some(&b"in.1"[..]);
                let headers = rng.random_bool(0.3).then_some(&b"NATS/1.0\r\n\r\n"[..]);
                let published = Publish {
                    subject,
                    reply,
                    headers,
                    payload: &payload,
                };
                let passage = frame::Passage {
                    worker: rng.random_range(0..3),
                    passes: rng.random_range(0..5),
                    to_arriving: rng.random(),
                };
                frame::put_message_head(out, &names, passage, &published);
                out.extend_from_slice(headers.unwrap_or_default());
                out.extend_from_slice(&payload);
            }
        }
        if rng.random_range(0..15) == 0 {
            let at = rng.random_range(start..out.len());
            out[at] = rng.random();
        }
    }

    #[test]
    fn invariants_hold_for_random_frames_of_a_peer() {
        seeds::play(0..SEEDS, |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut input = vec![[0, 1, 7, 80, 255][rng.random_range(0..5)]];
            for _ in 0..rng.random_range(1..40) {
                put(&mut rng, &mut input);
            }
            route(&input);
        });
    }
}
