//! What a peer knows of the interest, while threads change it and it is announced again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Waker};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Interest;
use crate::outbox::{Outbox, Wire};
use crate::route::Route;
use crate::route::frame::{self, FRAME_BYTES_MAX, Frame};
use crate::route::hello::Hello;
use crate::subscription::Subscription;
use crate::subscriptions::Cursor;

const THREADS: u64 = 4;
const CHANGES: usize = 100;
const ROUNDS: u64 = 300;

/// Interest of one node: the number of members, by subject and queue group. It is 1 if there is no queue group.
pub(crate) type Picture = BTreeMap<(Vec<u8>, Option<Vec<u8>>), u32>;

pub(crate) fn picture_of(subscriptions: &[Arc<Subscription>]) -> Picture {
    let mut picture = Picture::new();
    for one in subscriptions {
        let key = (one.subject().to_vec(), one.queue().map(<[u8]>::to_vec));
        let members = picture.entry(key).or_insert(0);
        *members = if one.queue().is_some() { *members + 1 } else { 1 };
    }
    picture
}

fn subscribe_and_unsubscribe(interest: &Interest, seed: u64) -> Vec<Arc<Subscription>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let client = Arc::new(Outbox::unconnected(seed));
    let mut live: Vec<Arc<Subscription>> = Vec::new();
    for number in 0..CHANGES {
        if rng.random() && !live.is_empty() {
            interest.unsubscribe(&live.swap_remove(rng.random_range(0..live.len())));
            continue;
        }
        // Some subjects have many subscriptions; some have none at the end.
        let own = format!("{seed}.{number}.*");
        let subject = ["a", "b.*", &own][rng.random_range(0..3)];
        let queue = [None, Some(&b"q"[..])][rng.random_range(0..2)];
        let subscription = Subscription::new(Arc::clone(&client), subject.as_bytes(), queue, b"1");
        live.push(Arc::new(subscription));
        interest.subscribe(&live[live.len() - 1]);
    }
    live
}

/// Returns the interest as a peer knows it after these bytes.
fn applied(wire: &Wire) -> Picture {
    let sent = wire.lock().unwrap();
    let bytes: Vec<u8> = sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let (mut rest, mut picture) = (&bytes[..], Picture::new());
    while let Some((frame, length)) = frame::decode(rest, FRAME_BYTES_MAX).unwrap() {
        rest = &rest[length..];
        let key = |subject: &[u8], queue: Option<&[u8]>| (subject.to_vec(), queue.map(<[u8]>::to_vec));
        match frame {
            Frame::Interest {
                subject,
                queue,
                members,
            } => drop(picture.insert(key(subject, queue), members)),
            Frame::NoInterest { subject, queue } => drop(picture.remove(&key(subject, queue))),
            _ => {}
        }
    }
    picture
}

/// Plays one round: the complete interest is sent again and again while the table changes.
fn play(round: u64) {
    let (interest, wire) = (&Interest::new(), Wire::default());
    let outbox = Arc::new(Outbox::on_wire(1, 1, &wire));
    let address = ([127, 0, 0, 1], 6222).into();
    let route = Arc::new(Route::new(
        1,
        Arc::clone(&outbox),
        Hello::default(),
        address,
        None,
    ));
    let mut live = subscribe_and_unsubscribe(interest, round * (THREADS + 1));
    interest.add_route(&route);
    std::thread::scope(|scope| {
        let changing: Vec<_> = (1..=THREADS)
            .map(|number| round * (THREADS + 1) + number)
            .map(|seed| scope.spawn(move || subscribe_and_unsubscribe(interest, seed)))
            .collect();
        let mut is_over = false;
        while !is_over {
            is_over = changing.iter().all(|thread| thread.is_finished());
            let mut cursor = Cursor::default();
            while !interest.announce_piece(&mut cursor, &route) {}
        }
        live.extend(changing.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    interest.announce_members();
    let _ = outbox.poll_drain(&mut Context::from_waker(Waker::noop()));
    assert_eq!(applied(&wire), picture_of(&live), "in round {round}");
}

#[test]
fn a_peer_knows_the_exact_interest_after_concurrent_changes_and_announcements() {
    (0..ROUNDS).for_each(play);
}
