//! Announcing a node to real ZooKeeper servers: what an announcement promises, each promise once. The child
//! process that one test needs is this binary again, in the role of `an_announcing_child_process`.
#![allow(clippy::unwrap_used)]

mod zk;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use standin_registry::{
    Announcement, Endpoint, NodeState, Record, SourceState, Standing, ZooKeeperConfig, announce, reserve,
    watch,
};
use zk::child::{ChildProcess, hosts_for_a_child};
use zk::leaks::nothing_is_left_behind;
use zk::*;
use zookeeper_async::{Acl, CreateMode, Permission, Stat, ZkError};

/// The promise: what somebody did to our znode is seen and mended within this.
const PROMISED: Duration = Duration::from_secs(1);
/// The session timeout of most tests, the shortest there is.
const SESSION: Duration = Duration::from_secs(4);
const CHILD: &str = "an_announcing_child_process";

fn settings(hosts: impl Into<String>) -> ZooKeeperConfig {
    config(hosts).zookeeper.unwrap()
}

/// A node at a port of its own.
fn node(id: &str, port: u16) -> Record {
    Record {
        mesh: Some(Endpoint::new("10.0.0.1", port + 2_000)),
        ..Record::new(id, Endpoint::new("10.0.0.1", port))
    }
}

fn znode(id: &str) -> String {
    format!("{PATH}/{id}")
}

async fn until_standing(
    announcement: &mut Announcement,
    what: &str,
    good: impl Fn(&Standing) -> bool,
) -> Duration {
    let begun = Instant::now();
    let waiting = async {
        while !good(&announcement.standing()) {
            announcement.changed().await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}; {:?}", announcement.standing());
    }
    begun.elapsed()
}

/// Waits until the standing has this name.
async fn until_it_is(announcement: &mut Announcement, name: &str) -> Duration {
    until_standing(announcement, name, |standing| standing.as_str() == name).await
}

async fn announced(hosts: String, record: Record) -> Announcement {
    let mut announcement = announce(settings(hosts), record).unwrap();
    until_it_is(&mut announcement, "announced").await;
    announcement
}

fn others(announcement: &Announcement) -> Vec<String> {
    match announcement.standing() {
        Standing::Announced { nodes } => ids(&nodes),
        standing => panic!("{standing:?}"),
    }
}

fn reason(announcement: &Announcement) -> String {
    match announcement.standing() {
        Standing::Seeking { reason } | Standing::Taken { reason, .. } => reason,
        standing => panic!("{standing:?}"),
    }
}

/// What stands there now.
async fn read(writer: &Writer, path: &str) -> Option<(String, Stat)> {
    match writer.zookeeper.get_data(path, false).await {
        Ok((data, stat)) => Some((String::from_utf8(data).unwrap(), stat)),
        Err(ZkError::NoNode) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn owner(writer: &Writer, path: &str) -> Option<i64> {
    read(writer, path).await.map(|(_, stat)| stat.ephemeral_owner)
}

/// Waits until this record stands there as an ephemeral znode of another session than `not`, and returns how
/// long it took.
async fn until_stands(writer: &Writer, path: &str, record: &Record, not: i64) -> Duration {
    let begun = Instant::now();
    eventually("our record stands", async || {
        read(writer, path).await.is_some_and(|(data, stat)| {
            data == record.to_json() && stat.is_ephemeral() && stat.ephemeral_owner != not
        })
    })
    .await;
    begun.elapsed()
}

/// Puts an ephemeral znode of the writer's own session at the place of `id`, and returns its owner.
async fn hold(writer: &Writer, id: &str, data: String, acl: Vec<Acl>) -> i64 {
    writer.create_path(PATH).await;
    let (path, data) = (znode(id), data.into_bytes());
    let creating = writer.zookeeper.create(&path, data, acl, CreateMode::Ephemeral);
    creating.await.unwrap();
    let stat = writer.zookeeper.exists(&path, false).await.unwrap();
    stat.unwrap().ephemeral_owner
}

fn open() -> Vec<Acl> {
    Acl::open_unsafe().clone()
}

#[tokio::test]
async fn an_announced_node_is_seen_by_all_with_all_it_says() {
    let server = Server::started().await;
    let watch = watch(config(server.hosts())).unwrap();
    let record = Record {
        http: Some(Endpoint::new("10.0.0.1", 8222)),
        tls: true,
        zone: "a".into(),
        weight: 3,
        version: "0.1.0".into(),
        ..node("n1", 4222)
    };
    let first = announced(server.hosts(), record.clone()).await;
    assert_eq!(others(&first), [""; 0]);
    assert!(until_live(&watch, &["n1"]).await < PROMISED);
    let seen = watch.snapshot().live[0].clone();
    assert_eq!((&*seen.run, &seen.mesh), (&*record.run, &record.mesh));
    assert_eq!((&seen.http, seen.tls, seen.weight), (&record.http, true, 3));
    assert_eq!((&*seen.zone, &*seen.version), ("a", "0.1.0"));

    let second = announced(server.hosts(), node("n2", 4223)).await;
    assert_eq!(others(&second), ["n1"]);
    assert!(until_live(&watch, &["n1", "n2"]).await < PROMISED);
    assert_eq!(others(&first), [""; 0], "as of when it was made");
    drop(first);
    assert!(until_live(&watch, &["n2"]).await < PROMISED);
    second.withdraw().await;
    watch.close().await;
}

#[tokio::test]
async fn of_two_that_announce_in_one_moment_at_least_one_sees_the_other() {
    let server = Server::started().await;
    let (mut one_saw, mut both_saw) = (0, 0);
    for round in 0..40 {
        let hosts = || server.hosts();
        let (a, b) = tokio::join!(
            announced(hosts(), node("a", 4222)),
            announced(hosts(), node("b", 4223))
        );
        let (a_saw, b_saw) = (others(&a) == ["b"], others(&b) == ["a"]);
        assert!(a_saw || b_saw, "round {round}: neither saw the other");
        (one_saw, both_saw) = (
            one_saw + u32::from(a_saw != b_saw),
            both_saw + u32::from(a_saw && b_saw),
        );
        tokio::join!(a.withdraw(), b.withdraw());
    }
    println!("one saw the other {one_saw} times, both {both_saw} times");
}

#[tokio::test]
async fn a_reserved_place_is_seen_to_and_taken_only_when_that_is_wanted() {
    let mut server = Server::started().await;
    let writer = server.writer().await;
    let (mine, path) = (node("n1", 4001), znode("n1"));
    // The last life of this node left one.
    let ghost = Record {
        run: "before".into(),
        ..mine.clone()
    };
    hold(&writer, "n1", ghost.to_json(), open()).await;
    let mut announcement = reserve(settings(server.hosts()), mine.clone()).unwrap();
    until_it_is(&mut announcement, "ready").await;
    assert_eq!(owner(&writer, &path).await, None);
    let other = Record {
        weight: 7,
        ..mine.clone()
    };
    announcement.set(other.clone()).unwrap();
    // Through a lost session too.
    drop(writer);
    server.kill().await;
    until_it_is(&mut announcement, "seeking").await;
    server.start().await;
    until_it_is(&mut announcement, "ready").await;
    let writer = server.writer().await;
    assert_eq!(owner(&writer, &path).await, None);
    announcement.release();
    until_it_is(&mut announcement, "announced").await;
    assert_eq!(
        read(&writer, &path).await.map(|(data, _)| data),
        Some(other.to_json())
    );
    announcement.withdraw().await;
    let (ours, theirs) = (node("n2", 4002), node("n2", 4003));
    let holder = announced(server.hosts(), theirs).await;
    let mut late = reserve(settings(server.hosts()), ours).unwrap();
    until_it_is(&mut late, "taken").await;
    holder.withdraw().await;
    until_it_is(&mut late, "ready").await;
}

#[tokio::test]
async fn another_record_is_written_at_once_and_the_id_stays() {
    let server = Server::started().await;
    let watch = watch(config(server.hosts())).unwrap();
    let record = node("n1", 4222);
    let announcement = announced(server.hosts(), record.clone()).await;
    until_live(&watch, &["n1"]).await;
    let standing = announcement.standing();
    for state in [NodeState::Draining, NodeState::Up, NodeState::Draining] {
        let other = Record {
            state,
            ..record.clone()
        };
        announcement.set(other).unwrap();
        let taken = until(&watch, state.as_str(), |snapshot| snapshot.live[0].state == state).await;
        assert!(taken < PROMISED, "{taken:?}");
    }
    assert_eq!(announcement.standing(), standing);
    for other in [node("n2", 4222), node("n1", 4222)] {
        let error = announcement.set(other).unwrap_err();
        assert!(error.to_string().contains("it stays"), "{error}");
    }
    announcement.withdraw().await;
    watch.close().await;
}

#[tokio::test]
async fn a_withdrawn_node_is_gone_at_once() {
    let server = Server::started().await;
    let writer = server.writer().await;
    for _ in 0..3 {
        let announcement = announced(server.hosts(), node("n1", 4222)).await;
        assert!(owner(&writer, &znode("n1")).await.is_some());
        let begun = Instant::now();
        announcement.withdraw().await;
        assert!(begun.elapsed() < PROMISED, "{:?}", begun.elapsed());
        assert_eq!(owner(&writer, &znode("n1")).await, None);
        eventually("the session is closed", async || {
            server.connections().await == Some(1)
        })
        .await;
    }
}

#[tokio::test]
async fn a_zookeeper_that_cannot_be_reached_does_not_hold_up_a_withdrawal() {
    let mut server = Server::started().await;
    let frozen = announced(server.hosts(), node("n1", 4222)).await;
    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    frozen.withdraw().await;
    assert!(begun.elapsed() < PROMISED, "{:?} while frozen", begun.elapsed());
    server.signal(Signal::SIGCONT);

    let mut down = announced(server.hosts(), node("n2", 4223)).await;
    server.kill().await;
    until_it_is(&mut down, "seeking").await;
    let begun = Instant::now();
    down.withdraw().await;
    assert!(begun.elapsed() < PROMISED, "{:?} while down", begun.elapsed());
}

#[tokio::test]
async fn a_zookeeper_that_is_down_at_start_is_found_when_it_comes() {
    let mut server = Server::new();
    let mut record = node("n1", 4222);
    let mut announcement = announce(settings(server.hosts()), record.clone()).unwrap();
    assert!(reason(&announcement).contains("not answered yet"));
    until_standing(
        &mut announcement,
        "told why",
        |standing| matches!(standing, Standing::Seeking { reason } if reason.contains("cannot connect")),
    )
    .await;
    // What is set meanwhile counts from the first moment.
    record.state = NodeState::Draining;
    announcement.set(record.clone()).unwrap();
    server.start().await;
    until_it_is(&mut announcement, "announced").await;
    let (data, stat) = read(&server.writer().await, &znode("n1")).await.unwrap();
    assert_eq!((data, stat.version), (record.to_json(), 0));
    announcement.withdraw().await;
}

#[tokio::test]
async fn a_restart_within_the_session_is_outlived() {
    let mut server = Server::started().await;
    let record = node("n1", 4222);
    let mut announcement = announced(server.hosts(), record.clone()).await;
    let before = owner(&server.writer().await, &znode("n1")).await.unwrap();
    for _ in 0..2 {
        server.kill().await;
        until_it_is(&mut announcement, "seeking").await;
        assert!(reason(&announcement).contains(&server.hosts()));
        server.start().await;
        until_it_is(&mut announcement, "announced").await;
        // The ghost of the session before is not waited for.
        let writer = server.writer().await;
        assert!(until_stands(&writer, &znode("n1"), &record, before).await < PROMISED);
    }
    announcement.withdraw().await;
}

#[tokio::test]
async fn a_frozen_server_is_told_within_the_session_timeout_and_outlived() {
    let server = Server::started().await;
    let mut announcement = announced(server.hosts(), node("n1", 4222)).await;
    server.signal(Signal::SIGSTOP);
    let taken = until_it_is(&mut announcement, "seeking").await;
    assert!(taken < SESSION, "{taken:?}");
    assert!(reason(&announcement).contains("no answer within"));
    server.signal(Signal::SIGCONT);
    until_it_is(&mut announcement, "announced").await;
    announcement.withdraw().await;
}

#[tokio::test]
async fn an_expired_session_of_a_frozen_node_is_replaced_when_it_wakes() {
    let server = Server::started().await;
    let watch = watch(config(server.hosts())).unwrap();
    let mut child = ChildProcess::start(CHILD, &server.hosts());
    child.until("announced").await;
    until_live(&watch, &["child"]).await;
    child.signal(Signal::SIGSTOP);
    let taken = until_live(&watch, &[]).await;
    assert!(taken < 2 * SESSION, "{taken:?}");
    child.signal(Signal::SIGCONT);
    child.until("seeking").await;
    child.until("announced").await;
    until_live(&watch, &["child"]).await;
    watch.close().await;
}

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
    assert_eq!(others(&other), [""; 0], "the other was left in peace");
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
    assert_eq!(others(&second), [""; 0]);
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

#[tokio::test]
async fn a_chroot_that_does_not_exist_yet_is_made() {
    let server = Server::started().await;
    let writer = server.writer().await;
    for (chroot, path, at) in [
        ("/app/blue", "/nodes", "/app/blue/nodes/n1"),
        ("/flat", "/", "/flat/n1"),
        ("", "/", "/n1"),
    ] {
        let mut settings = settings(format!("{}{chroot}", server.hosts()));
        settings.path = path.into();
        let mut announcement = announce(settings, node("n1", 4222)).unwrap();
        until_it_is(&mut announcement, "announced").await;
        assert!(owner(&writer, at).await.is_some_and(|owner| owner != 0), "{at}");
        announcement.withdraw().await;
    }
}

#[tokio::test]
async fn with_digest_credentials_all_can_read_and_only_we_can_change() {
    let mut server = Server::started().await;
    let record = node("n1", 4222);
    let mut settings = settings(server.hosts());
    settings.digest_auth = Some("node:secret".into());
    let mut announcement = announce(settings.clone(), record.clone()).unwrap();
    until_it_is(&mut announcement, "announced").await;
    let stranger = server.writer().await;
    let (data, stat) = read(&stranger, &znode("n1")).await.unwrap();
    assert_eq!(data, record.to_json());
    let refused = [
        stranger
            .zookeeper
            .set_data(&znode("n1"), vec![], None)
            .await
            .err(),
        stranger.zookeeper.delete(&znode("n1"), None).await.err(),
        stranger
            .zookeeper
            .create(&znode("n2"), vec![], open(), CreateMode::Ephemeral)
            .await
            .err(),
    ];
    assert_eq!(refused, [Some(ZkError::NoAuth); 3]);
    let watch = watch(config(server.hosts())).unwrap();
    until_live(&watch, &["n1"]).await;
    let without = announce(zk::config(server.hosts()).zookeeper.unwrap(), node("n2", 4223));
    let mut without = without.unwrap();
    until_standing(
        &mut without,
        "the refusal is told",
        |standing| matches!(standing, Standing::Seeking { reason } if reason.contains("digest credentials")),
    )
    .await;
    without.withdraw().await;
    // They are shown again after a reconnect, and the ghost is ours to remove.
    server.kill().await;
    until_it_is(&mut announcement, "seeking").await;
    server.start().await;
    until_it_is(&mut announcement, "announced").await;
    until_zookeeper_is(&watch, SourceState::Healthy).await;
    until_stands(
        &server.writer().await,
        &znode("n1"),
        &record,
        stat.ephemeral_owner,
    )
    .await;
    announcement.withdraw().await;
    watch.close().await;
}

#[test]
fn nothing_is_left_behind_when_it_is_dropped_or_withdrawn() {
    nothing_is_left_behind(
        "nothing_is_left_behind_when_it_is_dropped_or_withdrawn",
        async |hosts, is_withdrawn| {
            let mut announcement = announce(settings(hosts), node("n1", 4222)).unwrap();
            announcement.changed().await;
            if is_withdrawn {
                announcement.withdraw().await;
            } else {
                drop(announcement);
            }
        },
    );
}

#[test]
fn values_that_cannot_work_are_refused() {
    let good = || (ZooKeeperConfig::new("127.0.0.1:1"), node("n1", 4222));
    let (config, record) = good();
    assert_eq!(announce(config, record).unwrap_err().kind(), "no_runtime");
    let (mut config, record) = good();
    config.session_timeout_ms = 1;
    assert_eq!(announce(config, record).unwrap_err().kind(), "setting");
    let (config, mut record) = good();
    record.id = "a/b".into();
    assert_eq!(announce(config, record).unwrap_err().kind(), "setting");
}

/// Not a test but the role of the child process; without the variable there is nothing to do.
#[tokio::test]
async fn an_announcing_child_process() {
    let Some(hosts) = hosts_for_a_child() else { return };
    let mut announcement = announce(settings(hosts), node("child", 4222)).unwrap();
    loop {
        announcement.changed().await;
        println!("{}", announcement.standing().as_str());
    }
}
