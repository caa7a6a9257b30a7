//! Every node restarted in turn under load, with sidecars before it: components keep their connections and their subscriptions,
//! and what is lost is what the sidecars own up to.

use std::time::Duration;

use e2e::raw::CONNECT_OLD;
use e2e::{
    Ledger, Maker, Mesh, MeshNode, PATIENCE, Publishing, RawClient, Receipts, Receiving, Sidecar, ZooKeeper,
    eventually,
};

const PATH: &str = "/standin/nodes";
const SIDECARS: usize = 3;
/// Each publishes a message so often.
const EVERY: Duration = Duration::from_millis(2);

/// Confirmed to the sidecar but not yet passed on by the node when it died: what its links' outboxes held.
const HELD_BY_A_DEAD_NODE_MAX: usize = 5;

/// What all publish within 10 ms, much longer than a session is between two nodes: less than one message for each move is what
/// is seen to be lost, on a busy machine too.
const PER_MOVE_MAX: usize = SIDECARS * 5;

/// How a node ends before it is started again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    InOrder,
    Killed,
}

/// A component behind each sidecar that publishes, one that listens to all, one that is of a group, and the flows among them.
struct Load {
    publishing: Vec<Publishing>,
    /// Directly on the node that stays.
    witness: Receiving,
    receiving: Vec<Receiving>,
    members: Vec<Receiving>,
}

impl Load {
    async fn start(sidecars: &[Sidecar], stays: &MeshNode) -> Self {
        let mut witness = stays.client().await;
        witness.subscribe("load.*", "1").await;
        witness.flush().await;
        let mut load = Self {
            publishing: Vec::new(),
            witness: Receiving::start(witness, "the witness"),
            receiving: Vec::new(),
            members: Vec::new(),
        };
        for (index, sidecar) in sidecars.iter().enumerate() {
            let mut subscriber = RawClient::open_with(sidecar.address(), CONNECT_OLD).await;
            subscriber.subscribe("load.*", "1").await;
            subscriber.flush().await;
            load.receiving
                .push(Receiving::start(subscriber, &format!("subscriber {index}")));
            let mut member = RawClient::open_with(sidecar.address(), CONNECT_OLD).await;
            member.send("SUB load.> crew 1\r\n").await;
            member.flush().await;
            load.members
                .push(Receiving::start(member, &format!("member {index}")));
        }
        for (index, sidecar) in sidecars.iter().enumerate() {
            let publisher = RawClient::open_with(sidecar.address(), CONNECT_OLD).await;
            let (name, subject) = (format!("p{index}"), format!("load.{index}"));
            load.publishing
                .push(Publishing::start(publisher, &name, &subject, EVERY));
        }
        load
    }

    /// Each publisher goes on, and each subscriber hears of it.
    async fn goes_on(&self) {
        let counts = || -> Vec<u64> {
            let publishing = self.publishing.iter().map(Publishing::count);
            publishing
                .chain(self.receiving.iter().map(Receiving::count))
                .collect()
        };
        let before = counts();
        eventually("all flows go on", PATIENCE, async || {
            counts()
                .iter()
                .zip(&before)
                .all(|(now, before)| *now > before + 50)
        })
        .await;
    }

    /// Ends it: no connection has ended, each subscription lives, nothing came twice.
    async fn end(self) -> Outcome {
        let mut ledger = Ledger::new();
        let mut publishers = Vec::new();
        for publishing in self.publishing {
            let (client, own) = publishing.stop().await;
            assert_eq!(client.ending(), None, "a publisher's connection ended");
            ledger.add(&own);
            publishers.push(client);
        }
        // The last word of each, which every subscription must hear, and behind which nothing of the load can come.
        let mut last = Ledger::new();
        for (index, publisher) in publishers.iter_mut().enumerate() {
            publisher.flush().await;
            let (name, subject) = (format!("last{index}"), format!("load.{index}"));
            last.publish(publisher, &name, &subject, 1).await;
            publisher.flush().await;
        }
        let mut all = ledger.clone();
        all.add(&last);
        let mut missing = Vec::new();
        for receiving in self.receiving.into_iter().chain([self.witness]) {
            let (mut client, mut receipts) = receiving.stop().await;
            receipts.gather(&mut client, &last, PATIENCE).await;
            receipts.take_all(&client.flush().await);
            assert_eq!(client.ending(), None, "a subscriber's connection ended");
            receipts.assert_no_more(&all);
            missing.push(receipts.missing(&ledger).len());
        }
        let missing_of_witness = missing.pop().unwrap_or_default();
        let mut group = Receipts::new("the group");
        let mut members = Vec::new();
        for member in self.members {
            let (client, receipts) = member.stop().await;
            group.add(&receipts);
            members.push(client);
        }
        eventually("the group hears the last words", PATIENCE, async || {
            for member in &mut members {
                group.take_all(&member.flush().await);
            }
            group.missing(&last).is_empty()
        })
        .await;
        assert_eq!(group.repeated(), [], "the group got a message twice");
        // Where no publisher was, a member may have got nothing. What it publishes itself goes to one on its own node: to it, sooner or later.
        for (index, member) in members.iter_mut().enumerate() {
            let mut own = Ledger::new();
            let mut got = Receipts::new("a member");
            eventually("a member's subscription lives", PATIENCE, async || {
                own.publish(member, &format!("member{index}"), "load.own", 1)
                    .await;
                got.take_all(&member.flush().await);
                (got.missing(&own).len() as u64) < own.total()
            })
            .await;
        }
        Outcome {
            way_in: missing_of_witness,
            way_out: missing.iter().sum(),
            of_group: group.missing(&ledger).len(),
            published: ledger.total() as usize,
        }
    }
}

/// What did not come.
struct Outcome {
    /// Not even to the node that stays.
    way_in: usize,
    /// To the subscribers behind sidecars, all together.
    way_out: usize,
    of_group: usize,
    published: usize,
}

/// One more node, which is in no registry and named to no client, so no sidecar is ever on it.
async fn start_one_that_stays(mesh: &mut Mesh) -> usize {
    let routes: Vec<String> = mesh
        .nodes
        .iter()
        .map(|node| format!("nats://{}", node.cluster_address()))
        .collect();
    let stays = mesh.add(None);
    let flags = ["--zookeeper", "", "--routes", &routes.join(","), "--no_advertise"];
    mesh.nodes[stays].flags.extend(flags.map(str::to_owned));
    mesh.nodes[stays].restart().await;
    mesh.wait_until_whole().await;
    stays
}

async fn restarted_in_turn(end: End) {
    let zookeeper = ZooKeeper::start().await;
    let mut mesh = Mesh::builder(Maker::Ours, 3)
        .zookeeper(zookeeper.hosts(), PATH)
        .start()
        .await;
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        let sidecar = Sidecar::builder().zookeeper(&zookeeper).start().await;
        eventually("the sidecar knows all nodes", PATIENCE, async || {
            sidecar.node_rows().await.len() == 3
        })
        .await;
        sidecars.push(sidecar);
    }
    let stays = start_one_that_stays(&mut mesh).await;
    let load = Load::start(&sidecars, &mesh.nodes[stays]).await;
    load.goes_on().await;
    for index in 0..stays {
        match end {
            End::InOrder => assert!(mesh.nodes[index].stop(PATIENCE).await.success()),
            End::Killed => mesh.nodes[index].kill(),
        }
        load.goes_on().await;
        mesh.nodes[index].restart().await;
        mesh.wait_until_whole().await;
        load.goes_on().await;
    }
    let outcome = load.end().await;
    let (mut in_doubt, mut moves) = (0, 0);
    for sidecar in &sidecars {
        let metrics = sidecar.metrics().await;
        in_doubt += metrics.value("standin_in_doubt_total", &[]) as usize;
        moves += metrics.value("standin_failovers_total", &[]) as usize;
    }
    let Outcome {
        way_in,
        way_out,
        of_group,
        published,
    } = outcome;
    eprintln!(
        "{way_in} of {published} messages lost on the way in ({in_doubt} in doubt), {way_out} on the way out to {SIDECARS} \
         subscribers, {of_group} at the group; {moves} moves of sessions"
    );
    assert!(moves > 0, "no session was on a node that ended");
    mesh.wait_until_agreed().await;
    match end {
        // A session that leaves by itself knows what its node has taken.
        End::InOrder => assert_eq!((way_in, in_doubt), (0, 0), "nothing is lost on the way in"),
        End::Killed => assert!(
            way_in <= in_doubt + stays * HELD_BY_A_DEAD_NODE_MAX,
            "{way_in} publishes are lost, {in_doubt} were counted in doubt"
        ),
    }
    // Towards a subscriber nobody can send again: it misses what is published between its two nodes.
    let most = way_in * SIDECARS + moves * PER_MOVE_MAX;
    assert!(
        way_out <= most && of_group <= most,
        "more than {most} lost in {moves} moves"
    );
}

#[tokio::test]
async fn all_nodes_restarted_in_order_under_load_are_not_noticed_by_components() {
    restarted_in_turn(End::InOrder).await;
}

#[tokio::test]
async fn all_nodes_killed_in_turn_under_load_are_not_noticed_by_components() {
    restarted_in_turn(End::Killed).await;
}
