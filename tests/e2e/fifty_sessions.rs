//! Fifty sessions of old and of current client libraries under load, while something planned happens behind their backs. No client notices
//! anything (promise S13).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::raw::CONNECT_OLD;
use e2e::{Component, Library, Publishing, RawClient, Receiving, TIMEOUT, eventually};

const SESSIONS: usize = 50;
/// Messages per second of each library's publisher.
const RATE: usize = 60;
/// Interval between two messages of a raw publisher. Together with the libraries they send about 2,000 messages per second.
const EVERY: Duration = Duration::from_millis(2);
const RAW_PUBLISHERS: usize = 3;
const BURST_TIMEOUT: Duration = Duration::from_secs(120);

/// The components of one library, each with a connection of its own.
struct Party {
    publisher: Component,
    subscriber: Component,
    member: Component,
    requester: Component,
}

impl Party {
    async fn start(library: Library, sidecars: &[SocketAddr], first: usize) -> Self {
        let url = |number: usize| format!("nats://{}", sidecars[(first + number) % sidecars.len()]);
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

/// Connects the sessions to these sidecars, in turn, and lets the event happen, which takes about this many seconds. Checks that each message
/// came once and in order, and that no connection ended.
pub(crate) async fn notice_nothing(sidecars: &[SocketAddr], seconds: usize, event: impl Future<Output = ()>) {
    let burst = RATE * seconds;
    let mut parties = Vec::new();
    for (index, library) in Library::ALL.into_iter().enumerate() {
        parties.push(Party::start(library, sidecars, index).await);
    }
    let open =
        async |number: usize| RawClient::open_with(sidecars[number % sidecars.len()], CONNECT_OLD).await;
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
            .start_burst(&format!("old.{number}"), &format!("{number}-"), burst, RATE);
    }

    let (mut answered, mut is_over) = (0, false);
    let mut event = std::pin::pin!(event);
    while !is_over {
        for party in &mut parties {
            let payload = answered.to_string();
            let request = party.requester.request("ask.it", &payload);
            let reply = tokio::join!(request, async {
                if !is_over {
                    is_over = tokio::time::timeout(Duration::from_millis(20), &mut event)
                        .await
                        .is_ok();
                }
            });
            assert!(reply.0.ends_with(&format!("re:{payload}")), "{:?}", reply.0);
            answered += 1;
        }
    }
    eprintln!("{answered} requests meanwhile");

    for party in &mut parties {
        party.publisher.wait_for_burst(BURST_TIMEOUT).await;
        party.publisher.flush().await;
    }
    let due = parties.len() * burst;
    for party in &mut parties {
        let subscriber = &mut party.subscriber;
        eventually("the subscriber has all messages", TIMEOUT, async || {
            subscriber.messages("all").len() >= due
        })
        .await;
        subscriber.flush().await;
        let payloads = subscriber.payloads("all");
        for (publisher, numbers) in by_publisher(&payloads) {
            let is_whole = numbers.iter().copied().eq(1..=burst);
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
