//! Registration of a node at real ZooKeeper servers with conflicts: znodes of dead sessions (ghosts), other nodes with the same id,
//! changes by operators.

use std::time::Instant;

use crate::zk::announcing::*;
use crate::zk::*;
use e2e::ZooKeeper;
use standin_registry::RegistrationState;
use zookeeper_async::{Acl, Permission, ZkError};

#[tokio::test]
async fn a_deleted_znode_is_created_again() {
    let (mut server, writer) = started().await;
    let record = node("n1", 4222);
    let announcement = announced(server.hosts(), record.clone()).await;
    for parents in [&[][..], &[PATH, "/standin"]] {
        for path in [&[znode("n1").as_str()][..], parents].concat() {
            // The node may have created its znode again before. Then the parent is not empty, and cannot be deleted.
            match writer.zookeeper.delete(path, None).await {
                Ok(()) | Err(ZkError::NotEmpty) => {}
                Err(error) => panic!("{path}: {error}"),
            }
        }
        in_time(until_registered(&writer, &record, 0).await);
    }
    server.lose_everything().await;
    until_it_is(&announcement, "announced").await;
    until_registered(&Writer::to(&server).await, &record, 0).await;
}

#[tokio::test]
async fn an_overwritten_record_is_written_again() {
    let (server, writer) = started().await;
    let record = node("n1", 4222);
    let _announcement = announced(server.hosts(), record.clone()).await;
    let before = owner(&writer, &znode("n1")).await;
    for garbage in ["", "garbage", &node("n1", 4223).to_record()] {
        writer.put("n1", garbage).await;
        in_time(until_registered(&writer, &record, 0).await);
    }
    assert_eq!(owner(&writer, &znode("n1")).await, before);
}

#[tokio::test]
async fn ghosts_of_this_and_of_the_earlier_process_are_replaced_at_once() {
    let (server, writer) = started().await;
    let record = node("n1", 4222);
    let earlier_process = node("n1", 4222);
    assert_ne!(record.run, earlier_process.run);
    for ghost in [&record, &earlier_process] {
        let ghost_owner = hold(&writer, "n1", ghost.to_record(), open()).await;
        let begun = Instant::now();
        let announcement = announced(server.hosts(), record.clone()).await;
        in_time(begun.elapsed());
        until_registered(&writer, &record, ghost_owner).await;
        announcement.withdraw().await;
    }
}

#[tokio::test]
async fn an_id_of_another_live_node_is_taken_until_that_node_unregisters() {
    let server = ZooKeeper::start().await;
    let other = announced(server.hosts(), node("n1", 4222)).await;
    let begun = Instant::now();
    let ours = announce(settings(server.hosts()), node("n1", 4223)).unwrap();
    until_seeking(&ours, "another process holds it").await;
    until_it_is(&ours, "taken").await;
    let taken = begun.elapsed();
    assert!(
        taken >= 2 * SESSION && taken < 3 * SESSION,
        "a ghost would have been deleted after {SESSION:?}: {taken:?}"
    );
    let reason = reason(&ours);
    assert!(
        reason.contains(&znode("n1")) && reason.contains("10.0.0.1:6222"),
        "{reason}"
    );
    assert_eq!(
        other.state(),
        RegistrationState::Announced,
        "the other node is not affected"
    );
    other.withdraw().await;
    in_time(until_it_is(&ours, "announced").await);
}

#[tokio::test]
async fn two_nodes_with_one_id_and_one_address_do_not_delete_each_others_znode_forever() {
    let (server, writer) = started().await;
    let first = announced(server.hosts(), node("n1", 4222)).await;
    let second = announced(server.hosts(), node("n1", 4222)).await;
    let second_owner = owner(&writer, &znode("n1")).await;
    until_it_is(&first, "taken").await;
    assert_eq!(owner(&writer, &znode("n1")).await, second_owner);
    assert_eq!(second.state(), RegistrationState::Announced);
    second.withdraw().await;
    in_time(until_it_is(&first, "announced").await);
}

#[tokio::test]
async fn a_znode_that_cannot_be_read_is_not_changed() {
    let server = ZooKeeper::start().await;
    let hidden = vec![
        only_other(Permission::READ),
        Acl::new(Permission::WRITE, "world", "anyone"),
    ];
    for (data, acl, wait_max) in [
        ("10.0.0.1:4222".to_owned(), open(), PROMISED),
        // A znode that may not be read cannot be watched. Its end is noticed by the heartbeat.
        (node("n1", 4222).to_record(), hidden, SESSION / 2),
    ] {
        let holder = Writer::to(&server).await;
        let held = hold(&holder, "n1", data, acl).await;
        let ours = announce(settings(server.hosts()), node("n1", 4222)).unwrap();
        until_it_is(&ours, "taken").await;
        assert!(reason(&ours).contains("none of ours"), "{}", reason(&ours));
        let stat = holder.zookeeper.exists(&znode("n1"), false).await.unwrap();
        assert_eq!(stat.unwrap().ephemeral_owner, held);
        holder.zookeeper.close().await.unwrap();
        let waited = until_it_is(&ours, "announced").await;
        assert!(waited < wait_max, "{waited:?}");
        ours.withdraw().await;
    }
}

#[tokio::test]
async fn a_persistent_znode_is_reported_and_not_changed() {
    let (server, writer) = started().await;
    let record = node("n1", 4222);
    writer.put("n1", &record.to_record()).await;
    let ours = announce(settings(server.hosts()), record).unwrap();
    until_it_is(&ours, "taken").await;
    let reason = reason(&ours);
    assert!(
        reason.contains("delete it") && reason.contains(&znode("n1")),
        "{reason}"
    );
    writer.delete("n1").await;
    in_time(until_it_is(&ours, "announced").await);
}
