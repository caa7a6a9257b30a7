//! Each client library through the sidecar while the node under it is killed again and again, under load.
//!
//! The component publishes and subscribes at once. Its counterpart is a current client directly on a node that is not
//! registered and never dies, so whatever is missing was lost on the component's side.

use crate::site::{PATIENCE, Site};
use e2e::{Component, Library, RawClient, Record, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

const KILLS: usize = 4;
const PER_SEC: usize = 500;
const MESSAGES: usize = 6000;

/// Confirmed to the sidecar but not yet passed on by the node when it died: what its route's output buffer held.
const HELD_BY_A_DEAD_NODE_MAX: usize = 5;

/// The node outside the registry, which the counterpart is on.
const SAFE: usize = 2;

async fn outlives_its_nodes(library: Library, record: Record) {
    let mut site = Site::start_with(record, 2, |sidecar| sidecar).await;
    let mut component = Component::connect(library, &site.sidecar.url()).await;
    component.subscribe("all", "down.>");
    component.subscribe("star", "probe.*");
    component.subscribe_queue("member", "shared", "crew");
    component.flush().await;
    let mut counterpart = Component::connect(Library::Go, &site.cluster.nodes[SAFE].url()).await;
    counterpart.subscribe("up", "up.>");
    counterpart.flush().await;
    every_subscription_lives(&mut site, &mut component, &mut counterpart, "start").await;

    component.start_burst("up.load", "m", MESSAGES, PER_SEC);
    counterpart.start_burst("down.load", "m", MESSAGES, PER_SEC);
    for round in 0..KILLS {
        let victim = e2e::found("the session has a node", PATIENCE, async || {
            site.node_of_session().await
        })
        .await;
        site.cluster.kill(victim);
        let withdrawn = round % 2 == 0;
        let name = site.cluster.nodes[victim].name().to_owned();
        if withdrawn {
            // The other rounds leave the registration behind, as a node does that died a moment ago.
            site.registrar.withdraw(&name).await;
        }
        site.session_moved_from(victim).await;
        every_subscription_lives(
            &mut site,
            &mut component,
            &mut counterpart,
            &format!("kill{round}"),
        )
        .await;
        site.cluster.restart(victim).await;
        reaches_the_counterpart(&site, victim, &counterpart, round).await;
        if withdrawn {
            site.registrar
                .announce(record, &name, site.cluster.nodes[victim].address())
                .await;
        }
    }
    component.wait_for_burst(Duration::from_secs(60)).await;
    counterpart.wait_for_burst(Duration::from_secs(60)).await;
    component.flush().await;
    every_subscription_lives(&mut site, &mut component, &mut counterpart, "end").await;

    component.assert_untroubled();
    nothing_is_doubled_and_losses_are_counted(&site, &component, &counterpart).await;
    let failovers = site.sidecar.metrics().await.value("standin_failovers_total", &[]);
    assert!(
        failovers >= KILLS as f64,
        "{failovers} failovers counted for {KILLS} kills"
    );
}

/// A node that was started again passes on to the counterpart: until it has heard of the counterpart's interest it would
/// drop what a session publishes there, without anything being wrong.
async fn reaches_the_counterpart(site: &Site, node: usize, counterpart: &Component, round: usize) {
    let mut publisher = RawClient::open(site.cluster.nodes[node].address()).await;
    let payload = format!("reached{round}");
    eventually(
        format!("node {node} knows the counterpart"),
        PATIENCE,
        async || {
            publisher.publish("up.reach", &payload).await;
            publisher.flush().await;
            counterpart.payloads("up").contains(&payload)
        },
    )
    .await;
}

/// Each of the three subscriptions gets what is published from now on.
async fn every_subscription_lives(
    site: &mut Site,
    component: &mut Component,
    counterpart: &mut Component,
    stage: &str,
) {
    // Interest needs a moment to reach the counterpart's node; so it asks until it is heard.
    let heard = async || {
        for subject in [
            format!("probe.{stage}"),
            "shared".to_owned(),
            "down.probe".to_owned(),
        ] {
            counterpart.publish(&subject, stage);
        }
        counterpart.flush().await;
        ["all", "star", "member"]
            .iter()
            .all(|name| component.payloads(name).iter().any(|came| came == stage))
    };
    eventually(format!("every subscription lives at {stage}"), PATIENCE, heard).await;
    assert!(site.sidecar.process().is_running());
}

async fn nothing_is_doubled_and_losses_are_counted(
    site: &Site,
    component: &Component,
    counterpart: &Component,
) {
    let up = numbers(&counterpart.payloads("up"));
    let down = numbers(&component.payloads("all"));
    for (way, numbers) in [("up", &up), ("down", &down)] {
        let ascending = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(ascending, None, "{way}: a message came twice or out of order");
    }
    let metrics = site.sidecar.metrics().await;
    let in_doubt = metrics.value("standin_in_doubt_total", &[("policy", "drop")]) as usize;
    let missing = MESSAGES - up.len();
    let explained = in_doubt + KILLS * HELD_BY_A_DEAD_NODE_MAX;
    assert!(
        missing <= explained,
        "{missing} publishes are missing, but only {in_doubt} were counted in doubt"
    );

    // Towards the component nobody can resend; but each kill may tear one gap only.
    let came: BTreeSet<usize> = down.iter().copied().collect();
    let gaps = (2..=MESSAGES)
        .filter(|number| came.contains(&(number - 1)) && !came.contains(number))
        .count();
    assert!(gaps <= KILLS, "{gaps} gaps for {KILLS} kills");
    eprintln!(
        "missing up {missing} (in doubt {in_doubt}), missing down {} in {gaps} gaps",
        MESSAGES - down.len()
    );
}

fn numbers(payloads: &[String]) -> Vec<usize> {
    payloads
        .iter()
        .filter_map(|payload| payload.strip_prefix('m')?.parse().ok())
        .collect()
}

macro_rules! each_library_outlives_its_nodes {
    ($($name:ident: $library:ident, $record:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                outlives_its_nodes(Library::$library, Record::$record).await;
            }
        )*
    };
}

each_library_outlives_its_nodes! {
    node_0_2_outlives_its_nodes_unnoticed: Node02, Curator;
    node_0_8_outlives_its_nodes_unnoticed: Node08, Plain;
    node_1_4_outlives_its_nodes_unnoticed: Node14, Nerve;
    node_now_outlives_its_nodes_unnoticed: NodeNow, Own;
    nats_python_outlives_its_nodes_unnoticed: NatsPython, Plain;
    nats_py_outlives_its_nodes_unnoticed: NatsPy, Nerve;
    c_outlives_its_nodes_unnoticed: C, Curator;
    go_outlives_its_nodes_unnoticed: Go, ServerSet;
}
