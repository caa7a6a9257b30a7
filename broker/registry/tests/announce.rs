//! Registration of a node at real ZooKeeper servers, from the start of an announcement to its end.

use std::time::Instant;

use crate::zk::announcing::*;
use crate::zk::leaks::assert_no_resources_remain;
use crate::zk::*;
use e2e::{ZooKeeper, eventually};
use standin_registry::{
    Announcement, Endpoint, Node, NodeState, RegistrationState, SourceState, ZnodeReaders, ZooKeeperConfig,
    watch,
};
use zookeeper_async::{Acl, ZkError};

#[tokio::test]
async fn a_registered_node_is_seen_with_its_whole_record() {
    let (server, _writer, watch) = watched(&[]).await;
    let record = Node {
        http: Some(Endpoint::new("10.0.0.1", 8222)),
        tls: true,
        zone: "a".into(),
        weight: 3,
        version: "0.1.0".into(),
        ..node("n1", 4222)
    };
    let first = announced(server.hosts(), record.clone()).await;
    assert_eq!(registered(&first), ["n1"]);
    in_time(until_live(&watch, &["n1"]).await);
    let seen = watch.snapshot().live[0].clone();
    assert_eq!((&*seen.run, &seen.mesh), (&*record.run, &record.mesh));
    assert_eq!((&seen.http, seen.tls, seen.weight), (&record.http, true, 3));
    assert_eq!((&*seen.zone, &*seen.version), ("a", "0.1.0"));

    let second = announced(server.hosts(), node("n2", 4223)).await;
    assert_eq!(registered(&second), ["n1", "n2"]);
    in_time(until_live(&watch, &["n1", "n2"]).await);
    drop(first);
    in_time(until_live(&watch, &["n2"]).await);
}

#[tokio::test]
async fn of_two_nodes_that_register_at_the_same_time_at_least_one_sees_the_other() {
    let server = ZooKeeper::start().await;
    let (mut one_saw, mut both_saw) = (0, 0);
    for round in 0..40 {
        let announced = async |id, port| {
            let announcement = announced(server.hosts(), node(id, port)).await;
            let sees_both = registered(&announcement) == ["a", "b"];
            (announcement, sees_both)
        };
        let ((a, a_saw), (b, b_saw)) = tokio::join!(announced("a", 4222), announced("b", 4223));
        assert!(a_saw || b_saw, "round {round}: neither saw the other");
        one_saw += u32::from(a_saw != b_saw);
        both_saw += u32::from(a_saw && b_saw);
        tokio::join!(a.withdraw(), b.withdraw());
    }
    println!("one saw the other {one_saw} times, both {both_saw} times");
}

#[tokio::test]
async fn a_reserved_announcement_creates_its_znode_only_after_release() {
    let (mut server, writer) = started().await;
    let (mine, path) = (node("n1", 4001), znode("n1"));
    // The earlier process of this node left a znode.
    let ghost = Node {
        run: "before".into(),
        ..mine.clone()
    };
    hold(&writer, "n1", ghost.to_record(), open()).await;
    let announcement = reserved(&server, mine.clone());
    until_it_is(&announcement, "ready").await;
    assert_eq!(owner(&writer, &path).await, None);
    let other = Node {
        weight: 7,
        ..mine.clone()
    };
    announcement.set(other.clone()).unwrap();
    // The loss of the connection does not create the znode either.
    drop(writer);
    server.kill();
    until_it_is(&announcement, "seeking").await;
    server.start_again().await;
    until_it_is(&announcement, "ready").await;
    let writer = Writer::to(&server).await;
    assert_eq!(owner(&writer, &path).await, None);
    announcement.release();
    until_it_is(&announcement, "announced").await;
    let (data, _) = read(&writer, &path).await.unwrap();
    assert_eq!(data, other.to_record());
    announcement.withdraw().await;
    let (ours, theirs) = (node("n2", 4002), node("n2", 4003));
    let holder = announced(server.hosts(), theirs).await;
    let late = reserved(&server, ours);
    until_it_is(&late, "taken").await;
    holder.withdraw().await;
    until_it_is(&late, "ready").await;
}

#[tokio::test]
async fn a_changed_record_is_written_at_once_and_the_id_and_the_run_cannot_change() {
    let (server, _writer, watch) = watched(&[]).await;
    let record = node("n1", 4222);
    let announcement = announced(server.hosts(), record.clone()).await;
    until_live(&watch, &["n1"]).await;
    let state = announcement.state();
    for state in [NodeState::Draining, NodeState::Up, NodeState::Draining] {
        let other = Node {
            state,
            ..record.clone()
        };
        announcement.set(other).unwrap();
        in_time(until(&watch, state.as_str(), |snapshot| snapshot.live[0].state == state).await);
    }
    assert_eq!(announcement.state(), state);
    for other in [node("n2", 4222), node("n1", 4222)] {
        let error = announcement.set(other).unwrap_err();
        assert!(error.to_string().contains("it cannot change"), "{error}");
    }
}

#[tokio::test]
async fn unregistering_a_node_removes_its_znode_at_once() {
    let (server, writer) = started().await;
    for _ in 0..3 {
        let announcement = announced(server.hosts(), node("n1", 4222)).await;
        assert!(owner(&writer, &znode("n1")).await.is_some());
        let begun = Instant::now();
        announcement.withdraw().await;
        in_time(begun.elapsed());
        assert_eq!(owner(&writer, &znode("n1")).await, None);
        eventually("the session is closed", TIMEOUT, async || {
            connections(&server).await == Some(1)
        })
        .await;
    }
}

#[tokio::test]
async fn an_unreachable_zookeeper_does_not_delay_the_end_of_a_registration() {
    let mut server = ZooKeeper::start().await;
    let frozen = announced(server.hosts(), node("n1", 4222)).await;
    server.process().freeze().await;
    let begun = Instant::now();
    frozen.withdraw().await;
    in_time(begun.elapsed());
    server.process().thaw();

    let down = announced(server.hosts(), node("n2", 4223)).await;
    server.kill();
    until_it_is(&down, "seeking").await;
    let begun = Instant::now();
    down.withdraw().await;
    in_time(begun.elapsed());
}

#[tokio::test]
async fn a_zookeeper_that_is_down_at_first_is_used_once_it_is_up() {
    let mut server = stopped_server().await;
    let mut record = node("n1", 4222);
    let announcement = announce(settings(server.hosts()), record.clone()).unwrap();
    assert!(reason(&announcement).contains("not answered yet"));
    until_seeking(&announcement, "cannot connect").await;
    // A record that is set while ZooKeeper is down is the first one written.
    record.state = NodeState::Draining;
    announcement.set(record.clone()).unwrap();
    server.start_again().await;
    until_it_is(&announcement, "announced").await;
    let (data, stat) = read(&Writer::to(&server).await, &znode("n1")).await.unwrap();
    assert_eq!((data, stat.version), (record.to_record(), 0));
}

#[tokio::test]
async fn the_znode_survives_a_restart_of_the_server_within_the_session() {
    let mut server = ZooKeeper::start().await;
    let record = node("n1", 4222);
    let announcement = announced(server.hosts(), record.clone()).await;
    let before = owner(&Writer::to(&server).await, &znode("n1")).await.unwrap();
    for _ in 0..2 {
        server.kill();
        until_it_is(&announcement, "seeking").await;
        assert!(reason(&announcement).contains(&server.hosts()));
        server.start_again().await;
        until_it_is(&announcement, "announced").await;
        // The data of the server survive the restart, and with them the session and our znode.
        let writer = Writer::to(&server).await;
        assert_eq!(owner(&writer, &znode("n1")).await, Some(before));
    }
}

#[tokio::test]
async fn a_missing_chroot_is_created() {
    let (server, writer) = started().await;
    for (chroot, path, at) in [
        ("/app/blue", "/nodes", "/app/blue/nodes/n1"),
        ("/flat", "/", "/flat/n1"),
        ("", "/", "/n1"),
    ] {
        let mut settings = settings(format!("{}{chroot}", server.hosts()));
        settings.path = path.into();
        let announcement = announce(settings, node("n1", 4222)).unwrap();
        until_it_is(&announcement, "announced").await;
        assert!(owner(&writer, at).await.is_some_and(|owner| owner != 0), "{at}");
        announcement.withdraw().await;
    }
}

#[tokio::test]
async fn parents_are_created_below_a_writable_chroot_in_a_read_only_root() {
    let (server, writer) = started().await;
    writer.create_path("/app").await;
    let read_only = Acl::read_unsafe().clone();
    writer.zookeeper.set_acl("/", read_only, None).await.unwrap();
    let announcement = announced(format!("{}/app", server.hosts()), node("n1", 4222)).await;
    assert_eq!(registered(&announcement), ["n1"]);
}

#[tokio::test]
async fn with_digest_credentials_all_can_read_the_znode_and_only_we_can_change_it() {
    let mut server = ZooKeeper::start().await;
    let record = node("n1", 4222);
    let mut settings = settings(server.hosts());
    settings.digest_auth = Some("node:secret".into());
    let announcement = announce(settings.clone(), record.clone()).unwrap();
    until_it_is(&announcement, "announced").await;
    let stranger = Writer::to(&server).await;
    let (data, stat) = read(&stranger, &znode("n1")).await.unwrap();
    assert_eq!(data, record.to_record());
    let (zookeeper, n1, n2) = (&stranger.zookeeper, znode("n1"), znode("n2"));
    let refused = [
        zookeeper.set_data(&n1, vec![], None).await.err(),
        zookeeper.delete(&n1, None).await.err(),
        stranger.create(&n2, "", open()).await.err(),
    ];
    assert_eq!(refused, [Some(ZkError::NoAuth); 3]);
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["n1"]).await;
    let without = announce(config(server.hosts()).zookeeper.unwrap(), node("n2", 4223)).unwrap();
    until_seeking(&without, "digest credentials").await;
    without.withdraw().await;
    // The credentials are sent again after a reconnect, so the znode can be changed.
    server.kill();
    until_it_is(&announcement, "seeking").await;
    server.start_again().await;
    until_it_is(&announcement, "announced").await;
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    let draining = draining(&record);
    announcement.set(draining.clone()).unwrap();
    let writer = Writer::to(&server).await;
    until_registered(&writer, &draining, 0).await;
    assert_eq!(owner(&writer, &znode("n1")).await, Some(stat.ephemeral_owner));
}

#[tokio::test]
async fn with_readers_creator_only_our_credentials_can_read_the_znode_and_its_parents() {
    let server = ZooKeeper::start().await;
    let mut settings = settings(server.hosts());
    settings.digest_auth = Some("node:secret".into());
    settings.readers = ZnodeReaders::Creator;
    let announcement = announce(settings.clone(), node("n1", 4222)).unwrap();
    until_it_is(&announcement, "announced").await;
    let stranger = Writer::to(&server).await;
    let (zookeeper, n1) = (&stranger.zookeeper, znode("n1"));
    let refused = [
        zookeeper.get_data(&n1, false).await.err(),
        zookeeper.get_children(PATH, false).await.err(),
        zookeeper.get_children("/standin", false).await.err(),
        zookeeper.set_data(&n1, vec![], None).await.err(),
        zookeeper.delete(&n1, None).await.err(),
    ];
    assert_eq!(refused, [Some(ZkError::NoAuth); 5]);
    let mut config = config(server.hosts());
    config.zookeeper = Some(settings);
    until_live(&watch(config).unwrap(), &["n1"]).await;
}

#[tokio::test]
async fn a_reservation_without_a_znode_is_withdrawn_and_another_can_follow() {
    let server = ZooKeeper::start().await;
    let first = reserved(&server, node("n1", 4222));
    until_it_is(&first, "ready").await;
    let watch = first.watch().clone();
    let state = first.follow();
    first.withdraw().await;
    assert_eq!(*state.borrow(), RegistrationState::Withdrawn);
    let record = node("n2", 4223);
    let second = Announcement::reserve(&watch, record.clone()).unwrap();
    second.release();
    until_it_is(&second, "announced").await;
    // A watch has one announcement at a time. A refused second one leaves the first unchanged, although both have the same run.
    let error = Announcement::reserve(&watch, record.clone()).unwrap_err();
    assert!(error.to_string().contains("withdraw it first"), "{error}");
    let draining = draining(&record);
    second.set(draining.clone()).unwrap();
    until_registered(&Writer::to(&server).await, &draining, 0).await;
}

#[test]
fn no_resources_remain_after_the_end_of_an_announcement() {
    assert_no_resources_remain(
        "announce::no_resources_remain_after_the_end_of_an_announcement",
        async |hosts, is_withdrawn| {
            let announcement = announce(settings(hosts), node("n1", 4222)).unwrap();
            announcement.follow().changed().await.unwrap();
            if is_withdrawn {
                announcement.withdraw().await;
            } else {
                drop(announcement);
            }
        },
    );
}

#[tokio::test]
async fn invalid_values_are_errors() {
    let good = || (ZooKeeperConfig::new("127.0.0.1:1"), node("n1", 4222));
    let (mut config, record) = good();
    config.session_timeout_ms = 1;
    assert_eq!(announce(config, record).unwrap_err().kind(), "setting");
    let (config, mut record) = good();
    record.id = "a/b".into();
    assert_eq!(announce(config, record).unwrap_err().kind(), "setting");
}
