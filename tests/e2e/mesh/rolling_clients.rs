//! Fifty sessions of old and of current client libraries, while each of three brokers, two of them behind slow routes, is restarted twice.
//! No client notices anything (promise S13).

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::raw::CONNECT_OLD;
use e2e::{
    Component, Library, Mesh, Publishing, RawClient, Receiving, Relay, ServerKind, Sidecar, TIMEOUT,
    eventually,
};

const SIDECARS: usize = 3;
const SESSIONS: usize = 50;
const ROUNDS: usize = 2;
/// Nodes whose routes are slow, and by how much.
const SLOW_NODES: usize = 2;
const ROUTE_DELAY: Duration = Duration::from_millis(20);
/// Messages per second of each library's publisher.
const RATE: usize = 60;
/// Interval between two messages of a raw publisher. Together with the libraries they send about 2,000 messages per second.
const EVERY: Duration = Duration::from_millis(2);
const RAW_PUBLISHERS: usize = 3;
/// Messages of each library.
const BURST: usize = RATE * 30;
const BURST_TIMEOUT: Duration = Duration::from_secs(120);

/// The components of one library, each with a connection of its own.
struct Party {
    publisher: Component,
    subscriber: Component,
    member: Component,
    requester: Component,
}

impl Party {
    async fn start(library: Library, sidecars: &[Sidecar], first: usize) -> Self {
        let url = |number: usize| sidecars[(first + number) % sidecars.len()].url();
        let mut party = Self {
            publisher: Component::connect(library, &url(0)).await,
            subscriber: Component::connect(library, &url(1)).await,
            member: Component::connect(library, &url(2)).await,
            requester: Component::connect(library, &url(3)).await,
        };
        party.subscriber.subscribe("all", "old.>");
        party.member.subscribe_queue("crew", "old.>", "crew");
        // A connection of nats-python cannot wait for a reply while it has other subscriptions.
        if library != Library::NatsPython {
            party.requester.answer("ask.*", "re:");
        }
        for component in [&mut party.subscriber, &mut party.member, &mut party.requester] {
            component.flush().await;
        }
        party
    }

    fn components(&mut self) -> [&mut Component; 4] {
        [
            &mut self.publisher,
            &mut self.subscriber,
            &mut self.member,
            &mut self.requester,
        ]
    }
}

/// Returns the numbers of each burst among these payloads, in the order of their arrival.
fn by_publisher(payloads: &[String]) -> BTreeMap<&str, Vec<usize>> {
    let mut numbers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for payload in payloads {
        let (publisher, number) = payload.split_once('-').expect("publisher and number");
        let number = number.parse().expect("a number");
        numbers.entry(publisher).or_default().push(number);
    }
    numbers
}

#[tokio::test]
async fn s13_fifty_sessions_of_old_and_new_clients_notice_no_rolling_restart() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    let mut relays = Vec::new();
    for node in &mut mesh.nodes[..SLOW_NODES] {
        let relay = Relay::start(node.cluster_address(), ROUTE_DELAY).await;
        node.set("cluster.advertise", relay.address());
        relays.push(relay);
    }
    mesh.start_all().await;
    let mut sidecars = Vec::new();
    for _ in 0..SIDECARS {
        sidecars.push(Sidecar::builder().nodes(&mesh.nodes).start().await);
    }
    let mut parties = Vec::new();
    for (index, library) in Library::ALL.into_iter().enumerate() {
        parties.push(Party::start(library, &sidecars, index).await);
    }
    let open = async |number: usize| {
        let address = sidecars[number % SIDECARS].address();
        RawClient::open_with(address, CONNECT_OLD).await
    };
    let (mut publishing, mut receiving) = (Vec::new(), Vec::new());
    for number in 0..SESSIONS - parties.len() * 4 - RAW_PUBLISHERS {
        let subscriber = open(number).await.subscribed("load.*").await;
        receiving.push(Receiving::start(subscriber, &format!("subscriber {number}")));
    }
    for number in 0..RAW_PUBLISHERS {
        let (name, subject) = (format!("p{number}"), format!("load.{number}"));
        publishing.push(Publishing::start(open(number).await, &name, &subject, EVERY));
    }
    for (number, party) in parties.iter_mut().enumerate() {
        party
            .publisher
            .start_burst(&format!("old.{number}"), &format!("{number}-"), BURST, RATE);
    }

    let restarts = async {
        for _ in 0..ROUNDS {
            for index in 0..mesh.nodes.len() {
                assert!(mesh.nodes[index].stop(TIMEOUT).await.success());
                mesh.nodes[index].restart().await;
                mesh.wait_until_whole().await;
            }
        }
    };
    let (mut answered, mut is_over) = (0, false);
    let mut restarts = std::pin::pin!(restarts);
    while !is_over {
        for party in &mut parties {
            let payload = answered.to_string();
            let request = party.requester.request("ask.it", &payload);
            let reply = tokio::join!(request, async {
                if !is_over {
                    is_over = tokio::time::timeout(Duration::from_millis(20), &mut restarts)
                        .await
                        .is_ok();
                }
            });
            assert!(reply.0.ends_with(&format!("re:{payload}")), "{:?}", reply.0);
            answered += 1;
        }
    }
    println!("{answered} requests in {ROUNDS} rolling restarts");

    for party in &mut parties {
        party.publisher.wait_for_burst(BURST_TIMEOUT).await;
        party.publisher.flush().await;
    }
    let due = parties.len() * BURST;
    for party in &mut parties {
        let subscriber = &mut party.subscriber;
        eventually("the subscriber has all messages", TIMEOUT, async || {
            subscriber.messages("all").len() >= due
        })
        .await;
        subscriber.flush().await;
        let payloads = subscriber.payloads("all");
        for (publisher, numbers) in by_publisher(&payloads) {
            let is_whole = numbers.iter().copied().eq(1..=BURST);
            assert!(
                is_whole,
                "{:?} got of publisher {publisher}: {numbers:?}",
                subscriber.library()
            );
        }
    }
    let mut of_group: Vec<String> = Vec::new();
    eventually("the group has all messages", TIMEOUT, async || {
        let members = parties.iter().map(|party| party.member.payloads("crew"));
        of_group = members.flatten().collect();
        of_group.len() >= due
    })
    .await;
    of_group.sort_unstable();
    of_group.dedup();
    assert_eq!(of_group.len(), due, "the group got a message twice");
    for party in &mut parties {
        for component in party.components() {
            component.assert_untroubled();
        }
    }
    let mut ledger = e2e::Ledger::new();
    for publishing in publishing {
        let (mut client, own) = publishing.stop().await;
        client.flush().await;
        assert_eq!(client.ending(), None, "a publisher's connection ended");
        ledger.add(&own);
    }
    for receiving in receiving {
        let (mut client, mut receipts) = receiving.stop().await;
        receipts.gather(&mut client, &ledger, TIMEOUT).await;
        receipts.take_all(&client.flush().await);
        assert_eq!(client.ending(), None, "a subscriber's connection ended");
        receipts.assert_each_once(&ledger);
        assert_eq!(receipts.disordered(), [], "order was lost");
    }
}
