//! Announcing a node to real ZooKeeper servers where others have a hand in it: ghosts, other nodes of the same id, operators.

use std::time::Instant;

use crate::zk::announcing::*;
use crate::zk::*;
use standin_registry::{Endpoint, Standing, announce};
use zookeeper_async::{Acl, Permission, ZkError};

#[tokio::test]
async fn what_somebody_deleted_is_made_again() {
    let mut server = Server::started().await;
    let writer = server.writer().await;
    let record = node("n1", 4222);
    let mut announcement = announced(server.hosts(), record.clone()).await;
    for parents in [&[][..], &[PATH, "/standin"]] {
        for path in [&[znode("n1").as_str()][..], parents].concat() {
            // It may be quicker than we are; then its parent is not empty any more, which is as good.
            match writer.zookeeper.delete(path, None).await {
                Ok(()) | Err(ZkError::NotEmpty) => {}
                Err(error) => panic!("{path}: {error}"),
            }
        }
        let taken = until_stands(&writer, &znode("n1"), &record, 0).await;
        assert!(taken < PROMISED, "{taken:?}");
    }
    server.kill().await;
    server.wipe();
    server.start().await;
    until_it_is(&mut announcement, "announced").await;
    until_stands(&server.writer().await, &znode("n1"), &record, 0).await;
    announcement.withdraw().await;
}

#[tokio::test]
async fn what_somebody_wrote_over_it_is_written_back() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let record = node("n1", 4222);
    let announcement = announced(server.hosts(), record.clone()).await;
    let before = owner(&writer, &znode("n1")).await;
    for garbage in ["", "garbage", &node("n1", 4223).to_json()] {
        writer.put("n1", garbage).await;
        let taken = until_stands(&writer, &znode("n1"), &record, 0).await;
        assert!(taken < PROMISED, "{taken:?} after {garbage:?}");
    }
    assert_eq!(owner(&writer, &znode("n1")).await, before);
    announcement.withdraw().await;
}

#[tokio::test]
async fn ghosts_of_this_and_of_the_last_life_are_replaced_at_once() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let record = node("n1", 4222);
    let last_life = node("n1", 4222);
    assert_ne!(record.run, last_life.run);
    for ghost in [&record, &last_life] {
        let ghosts = hold(&writer, "n1", ghost.to_json(), open()).await;
        let begun = Instant::now();
        let announcement = announced(server.hosts(), record.clone()).await;
        assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
        until_stands(&writer, &znode("n1"), &record, ghosts).await;
        announcement.withdraw().await;
    }
}

#[tokio::test]
async fn an_id_of_a_live_other_is_taken_and_ours_when_the_other_goes() {
    let server = Server::started().await;
    let other = announced(server.hosts(), node("n1", 4222)).await;
    let begun = Instant::now();
    let mut ours = announce(settings(server.hosts()), node("n1", 4223)).unwrap();
    until_standing(&mut ours, "waiting", |standing| {
        matches!(standing, Standing::Seeking { reason } if reason.contains("another process holds it"))
    })
    .await;
    until_it_is(&mut ours, "taken").await;
    let taken = begun.elapsed();
    assert!(
        taken >= 2 * SESSION && taken < 3 * SESSION,
        "a ghost would have gone by {SESSION:?}: {taken:?}"
    );
    let Standing::Taken { by: Some(by), reason } = ours.standing() else {
        panic!("{ours:?}")
    };
    assert_eq!(by.mesh, Some(Endpoint::new("10.0.0.1", 6222)));
    assert!(
        reason.contains(&znode("n1")) && reason.contains("10.0.0.1:6222"),
        "{reason}"
    );
    assert_eq!(
        other.standing(),
        Standing::Announced,
        "the other was left in peace"
    );
    other.withdraw().await;
    let taken = until_it_is(&mut ours, "announced").await;
    assert!(taken < PROMISED, "{taken:?}");
    ours.withdraw().await;
}

#[tokio::test]
async fn two_nodes_told_one_id_and_one_address_do_not_fight() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let mut first = announced(server.hosts(), node("n1", 4222)).await;
    let second = announced(server.hosts(), node("n1", 4222)).await;
    let second_is = owner(&writer, &znode("n1")).await;
    until_it_is(&mut first, "taken").await;
    assert_eq!(owner(&writer, &znode("n1")).await, second_is);
    assert_eq!(second.standing(), Standing::Announced);
    second.withdraw().await;
    assert!(until_it_is(&mut first, "announced").await < PROMISED);
    first.withdraw().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_ours_and_left_alone() {
    let server = Server::started().await;
    let hidden = vec![
        Acl::new(Permission::READ, "digest", "other:aaaaaaaaaaaaaaaaaaaaaaaaaaa="),
        Acl::new(Permission::WRITE, "world", "anyone"),
    ];
    for (data, acl, noticed) in [
        ("10.0.0.1:4222".to_owned(), open(), PROMISED),
        // The server tells no watch what happens to a znode that may not be read; the heartbeat sees it.
        (node("n1", 4222).to_json(), hidden, SESSION / 2),
    ] {
        let holder = server.writer().await;
        let held = hold(&holder, "n1", data, acl).await;
        let mut ours = announce(settings(server.hosts()), node("n1", 4222)).unwrap();
        until_it_is(&mut ours, "taken").await;
        assert!(reason(&ours).contains("none of ours"), "{}", reason(&ours));
        let stat = holder.zookeeper.exists(&znode("n1"), false).await.unwrap();
        assert_eq!(stat.unwrap().ephemeral_owner, held);
        holder.zookeeper.close().await.unwrap();
        let taken = until_it_is(&mut ours, "announced").await;
        assert!(taken < noticed, "{taken:?}");
        ours.withdraw().await;
    }
}

#[tokio::test]
async fn a_persistent_znode_is_told_with_what_to_do_and_left_alone() {
    let server = Server::started().await;
    let writer = server.writer().await;
    let record = node("n1", 4222);
    writer.put("n1", &record.to_json()).await;
    let mut ours = announce(settings(server.hosts()), record).unwrap();
    until_it_is(&mut ours, "taken").await;
    assert!(reason(&ours).contains("delete it"), "{}", reason(&ours));
    assert!(reason(&ours).contains(&znode("n1")), "{}", reason(&ours));
    writer.delete("n1").await;
    let taken = until_it_is(&mut ours, "announced").await;
    assert!(taken < PROMISED, "{taken:?}");
    ours.withdraw().await;
}
