//! A scenario with all that components do with NATS. It runs directly on a node or through the sidecar.

use e2e::{Component, Library, eventually};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the scenario between two components of this library. Their addresses are the same or belong to one cluster.
pub(crate) async fn all_that_components_do(library: Library, publisher_url: &str, subscriber_url: &str) {
    let mut publisher = Component::connect(library, publisher_url).await;
    let mut subscriber = Component::connect(library, subscriber_url).await;
    subscribe_to_everything(&mut subscriber);
    subscriber.flush().await;
    wait_for_interest(&mut publisher, &mut subscriber).await;

    publish_everything(&mut publisher);
    publisher.flush().await;
    subscriber.expect_payloads("plain", &["a", "b", "c", "end"]).await;
    subscriber.expect_payloads("star", &["1"]).await;
    subscriber.expect_payloads("tail", &["1", "2", "3"]).await;
    subscriber.expect_payloads("few", &["1", "2", "3"]).await;
    let members = async || subscriber.payloads("member1").len() + subscriber.payloads("member2").len();
    eventually("the queue group gets all of its messages", TIMEOUT, async || {
        members().await >= 20
    })
    .await;

    assert_eq!(publisher.request("ask", "who").await, "re:who");
    assert_eq!(publisher.request("ask", "where").await, "re:where");

    // A message that should not arrive would have arrived before these replies.
    subscriber.flush().await;
    let mut shared = [subscriber.payloads("member1"), subscriber.payloads("member2")].concat();
    shared.sort_by_key(|payload| payload.parse::<u32>().unwrap_or_default());
    let each_once: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
    assert_eq!(shared, each_once, "a queue group gets each message once");
    assert_eq!(
        subscriber.payloads("few"),
        ["1", "2", "3"],
        "no message after the maximum"
    );
    assert_eq!(subscriber.payloads("gone"), [""; 0], "no message after UNSUB");
    publisher.assert_untroubled();
    subscriber.assert_untroubled();
    publisher.close().await;
    subscriber.close().await;
}

fn subscribe_to_everything(subscriber: &mut Component) {
    subscriber.subscribe("plain", "news.today");
    subscriber.subscribe("star", "w.*.c");
    subscriber.subscribe("tail", "w.>");
    subscriber.subscribe_queue("member1", "work", "crew");
    subscriber.subscribe_queue("member2", "work", "crew");
    subscriber.subscribe("few", "few");
    subscriber.unsubscribe_after("few", 3);
    subscriber.subscribe("gone", "gone");
    subscriber.unsubscribe("gone");
    subscriber.answer("ask", "re:");
    subscriber.subscribe("ready", "ready");
}

/// Waits until the last subscription, "ready", has reached the publisher's node, which takes a moment in a cluster.
async fn wait_for_interest(publisher: &mut Component, subscriber: &mut Component) {
    eventually(
        "the publisher's node has the subscriber's interest",
        TIMEOUT,
        async || {
            publisher.publish("ready", "now");
            publisher.flush().await;
            !subscriber.payloads("ready").is_empty()
        },
    )
    .await;
}

fn publish_everything(publisher: &mut Component) {
    for payload in ["a", "b", "c"] {
        publisher.publish("news.today", payload);
    }
    for (subject, payload) in [("w.b.c", "1"), ("w.x", "2"), ("w.b.d.e", "3")] {
        publisher.publish(subject, payload);
    }
    for number in 1..=20 {
        publisher.publish("work", &number.to_string());
    }
    for number in 1..=5 {
        publisher.publish("few", &number.to_string());
    }
    publisher.publish("gone", "1");
    publisher.publish("news.today", "end");
}
