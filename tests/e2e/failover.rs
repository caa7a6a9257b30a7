//! Each client library through the sidecar under load, while its node is killed several times.
//!
//! The component publishes and subscribes. Its counterpart is a current client connected directly to a node that is not
//! registered and not killed, so every missing message was lost on the component's side.

use crate::site::{Site, TIMEOUT};
use e2e::{Component, Library, Record, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

const KILLS: usize = 4;
const PER_SEC: usize = 500;
const MESSAGES: usize = 6000;

/// Maximum number of publishes lost with one node: confirmed to the sidecar, but still in the output buffer of the node's route.
const HELD_BY_A_DEAD_NODE_MAX: usize = 5;

/// The node of the counterpart, which is not registered.
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
    every_subscription_receives(&mut site, &mut component, &mut counterpart, "start").await;

    component.start_burst("up.load", "m", MESSAGES, PER_SEC);
    counterpart.start_burst("down.load", "m", MESSAGES, PER_SEC);
    for round in 0..KILLS {
        let node = site.sidecar.wait_for_node_of_session().await;
        let victim = site.cluster.index_of(node).expect("a node of the cluster");
        site.cluster.nodes[victim].kill();
        for bursting in [&mut component, &mut counterpart] {
            bursting.process().assert_no_line("burst-done");
        }
        let withdrawn = round % 2 == 0;
        let name = site.cluster.nodes[victim].name().to_owned();
        if withdrawn {
            // In the other rounds the record stays, as it does for a moment after a node's death.
            site.registrar.withdraw(&name).await;
        }
        site.session_moved_from(victim).await;
        every_subscription_receives(
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
    every_subscription_receives(&mut site, &mut component, &mut counterpart, "end").await;

    component.assert_untroubled();
    nothing_is_duplicated_and_losses_are_counted(&site, &component, &counterpart).await;
    let failovers = site.sidecar.metric("standin_failovers_total").await;
    assert!(
        failovers >= KILLS as f64,
        "{failovers} failovers counted for {KILLS} kills"
    );
}

/// Waits until a restarted node has the counterpart's interest. Until then it correctly drops what a session publishes there.
async fn reaches_the_counterpart(site: &Site, node: usize, counterpart: &Component, round: usize) {
    let mut publisher = site.cluster.nodes[node].client().await;
    let payload = format!("reached{round}");
    eventually(
        format!("node {node} has the counterpart's interest"),
        TIMEOUT,
        async || {
            publisher.publish("up.reach", &payload).await;
            publisher.flush().await;
            counterpart.payloads("up").contains(&payload)
        },
    )
    .await;
}

/// Waits until each of the component's three subscriptions receives a message published now.
async fn every_subscription_receives(
    site: &mut Site,
    component: &mut Component,
    counterpart: &mut Component,
    stage: &str,
) {
    // Published again and again, because interest takes a moment to reach the counterpart's node.
    let all_receive = async || {
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
            .all(|name| component.payloads(name).iter().any(|payload| payload == stage))
    };
    eventually(
        format!("every subscription receives at {stage}"),
        TIMEOUT,
        all_receive,
    )
    .await;
    assert!(site.sidecar.process().is_running());
}

async fn nothing_is_duplicated_and_losses_are_counted(
    site: &Site,
    component: &Component,
    counterpart: &Component,
) {
    let up = numbers(&counterpart.payloads("up"));
    let down = numbers(&component.payloads("all"));
    for (way, numbers) in [("up", &up), ("down", &down)] {
        let not_ascending = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(
            not_ascending, None,
            "{way}: a message was received twice or out of order"
        );
    }
    let metrics = site.sidecar.metrics().await;
    let in_doubt = metrics.value("standin_in_doubt_total{policy=drop}") as usize;
    let missing = MESSAGES - up.len();
    let held = KILLS * HELD_BY_A_DEAD_NODE_MAX;
    assert!(
        missing <= in_doubt + held,
        "{missing} publishes are missing, but only {in_doubt} were counted in doubt, and dead nodes held at most {held}"
    );

    // What a dead node held for the component cannot be sent again. Each kill may leave one gap.
    let received: BTreeSet<usize> = down.iter().copied().collect();
    let gaps = (2..=MESSAGES)
        .filter(|number| received.contains(&(number - 1)) && !received.contains(number))
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

cases! {
    outlives_its_nodes =>
    node_0_2_does_not_notice_that_its_nodes_die(Library::Node02, Record::Curator);
    node_0_8_does_not_notice_that_its_nodes_die(Library::Node08, Record::Plain);
    node_1_4_does_not_notice_that_its_nodes_die(Library::Node14, Record::Nerve);
    node_now_does_not_notice_that_its_nodes_die(Library::NodeNow, Record::Own);
    nats_python_does_not_notice_that_its_nodes_die(Library::NatsPython, Record::Plain);
    nats_py_does_not_notice_that_its_nodes_die(Library::NatsPy, Record::Nerve);
    c_does_not_notice_that_its_nodes_die(Library::C, Record::Curator);
    go_does_not_notice_that_its_nodes_die(Library::Go, Record::ServerSet);
}
