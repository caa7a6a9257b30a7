//! Queue groups over several nodes: each message is delivered to one member in the whole cluster, each member alike, or to a local one
//! first (`cluster.queue_preference`).

use e2e::{Ledger, Mesh, RawClient, Receipts, ServerKind, TIMEOUT, eventually};

/// Connects a member of the group `q` to this node.
async fn member(mesh: &Mesh, node: usize, subject: &str) -> RawClient {
    let mut member = mesh.nodes[node].client().await;
    member.send(format!("SUB {subject} q 1\r\n")).await;
    member.flush().await;
    member
}

/// Sends UNSUB and closes the member. Without UNSUB, messages in flight to the member would be lost.
async fn leave(mut member: RawClient) {
    member.send("UNSUB 1\r\n").await;
    member.flush().await;
    member.close().await;
}

/// Publishes this many messages and returns how many each member got.
async fn received_by_each(publisher: &mut RawClient, members: &mut [RawClient], count: u64) -> Vec<u64> {
    let mut ledger = Ledger::new();
    ledger.publish(publisher, "p", "work.x", count).await;
    publisher.flush().await;
    let mut shares = vec![0; members.len()];
    let mut all = Receipts::new("the group");
    eventually("the group has got all messages", TIMEOUT, async || {
        for (member, share) in members.iter_mut().zip(&mut shares) {
            let mut own = Receipts::new("a member");
            own.take_all(&member.flush().await);
            *share += own.total();
            all.add(&own);
        }
        all.total() >= count
    })
    .await;
    for member in members.iter_mut() {
        all.take_all(&member.flush().await);
    }
    all.assert_each_once(&ledger);
    shares
}

async fn each_message_has_one_receiver(kind: ServerKind, subjects: [&str; 3], prefers_local: bool) {
    let mut mesh = Mesh::builder(kind, 3);
    if prefers_local {
        mesh = mesh.setting("cluster.queue_preference", "local");
    }
    let mut mesh = mesh.start().await;
    let mut members = Vec::new();
    for (node, subject) in [0, 0, 1].into_iter().zip(subjects) {
        members.push(member(&mesh, node, subject).await);
    }
    mesh.wait_until_agreed().await;
    let mut publishers = Vec::new();
    for node in &mesh.nodes {
        publishers.push(node.client().await);
    }
    let from_first = received_by_each(&mut publishers[0], &mut members, 200).await;
    let from_second = received_by_each(&mut publishers[1], &mut members, 200).await;
    if prefers_local {
        assert!(
            from_first[0] > 0 && from_first[1] > 0 && from_first[2] == 0,
            "{from_first:?}"
        );
        assert_eq!(from_second, [0, 0, 200]);
    } else {
        // A third of 300 each, once the sizes of the groups are known. The standard deviation is 8, and the bounds are 5 of it away.
        for publisher in &mut publishers {
            eventually("each member gets a third", TIMEOUT, async || {
                let shares = received_by_each(publisher, &mut members, 300).await;
                shares.iter().all(|share| (60..140).contains(share))
            })
            .await;
        }
    }
    let from_third = received_by_each(&mut publishers[2], &mut members, 300).await;
    assert!(
        from_third.iter().sum::<u64>() == 300 && from_third[2] > 0,
        "{from_third:?}"
    );

    // The second node has no local member any more, and passes messages on to the others.
    leave(members.pop().expect("the third")).await;
    mesh.wait_until_agreed().await;
    let from_second = received_by_each(&mut publishers[1], &mut members, 200).await;
    assert_eq!(from_second.iter().sum::<u64>(), 200);
}

cases! {
    each_message_has_one_receiver =>
    each_message_for_a_group_has_one_receiver_in_the_cluster_each_member_alike(ServerKind::Standin, ["work.x"; 3], false);
    each_message_for_a_group_has_one_receiver_in_the_cluster_a_local_one_if_there_is_one(ServerKind::Standin, ["work.x"; 3], true);
    each_message_for_a_group_has_one_receiver_when_members_subscribe_to_different_subjects(ServerKind::Standin, ["work.x", "work.*", "work.>"], false);
    each_message_for_a_group_has_one_receiver_in_a_cluster_of_nats_server(ServerKind::NatsServer, ["work.x"; 3], false);
}

async fn nodes_get_messages_by_members(kind: ServerKind) {
    let mut mesh = Mesh::start(kind, 3).await;
    let mut members = Vec::new();
    for node in [1, 1, 1, 2] {
        members.push(member(&mesh, node, "work.x").await);
    }
    mesh.wait_until_agreed().await;
    let mut publisher = mesh.nodes[0].client().await;
    // Three in four of 800 messages go to the second node. The standard deviation is 12, and the bounds are 80 away.
    eventually("the shares follow the numbers of members", TIMEOUT, async || {
        let shares = received_by_each(&mut publisher, &mut members, 800).await;
        let second: u64 = shares[..3].iter().sum();
        (520..680).contains(&second) && shares.iter().all(|share| *share > 100)
    })
    .await;

    // Two members leave. The two nodes then have one member each, and each gets half of the messages.
    for _ in 0..2 {
        leave(members.remove(0)).await;
    }
    eventually("the nodes get equal shares", TIMEOUT, async || {
        let shares = received_by_each(&mut publisher, &mut members, 800).await;
        (340..460).contains(&shares[0])
    })
    .await;
    mesh.wait_until_agreed().await;
}

cases! {
    nodes_get_messages_by_members =>
    nodes_get_the_messages_of_a_group_in_proportion_to_their_members(ServerKind::Standin);
    nodes_of_nats_server_get_the_messages_of_a_group_in_proportion_to_their_members(ServerKind::NatsServer);
}

/// Each plain subscriber gets every message, and the group gets it once.
#[tokio::test]
async fn a_node_with_group_members_and_plain_subscribers_gets_each_message_once() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut members = vec![member(&mesh, 1, "work.*").await, member(&mesh, 2, "work.*").await];
    let mut plain = Vec::new();
    for node in [0, 1, 1, 2] {
        plain.push(mesh.nodes[node].subscriber("work.>").await);
    }
    let mut publisher = mesh.nodes[0].client().await;
    let before = mesh.nodes[1].messages_from_links().await;
    let group = received_by_each(&mut publisher, &mut members, 300).await;
    assert!(group.iter().all(|share| *share > 0), "{group:?}");
    let mut ledger = Ledger::new();
    for _ in 0..300 {
        ledger.next("p");
    }
    for (index, subscriber) in plain.iter_mut().enumerate() {
        ledger
            .reaches(subscriber, format!("plain subscriber {index}"))
            .await;
    }
    assert_eq!(
        mesh.nodes[1].messages_from_links().await - before,
        300,
        "a message was sent twice over the route"
    );
    mesh.wait_until_agreed().await;
}
