//! A current client through the sidecar to a nats-server cluster with JetStream: streams, consumers, key-value, requests.

use crate::site::session_moves_from;
use async_nats::jetstream::{self, consumer::PullConsumer, kv, stream};
use e2e::{Mesh, ServerKind, Sidecar, eventually};
use futures_util::StreamExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const MESSAGES: usize = 50;

/// Connects a client, and collects the events of its connection after that.
async fn watched_client(url: &str) -> (async_nats::Client, Arc<Mutex<Vec<String>>>) {
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let collected = Arc::clone(&events);
    let options = async_nats::ConnectOptions::new().event_callback(move |event| {
        let collected = Arc::clone(&collected);
        async move {
            if !matches!(event, async_nats::Event::Connected) {
                collected
                    .lock()
                    .expect("the lock is not poisoned")
                    .push(event.to_string());
            }
        }
    });
    (
        options.connect(url).await.expect("the sidecar takes connections"),
        events,
    )
}

#[tokio::test]
async fn jetstream_key_value_and_requests_work_before_and_after_the_loss_of_a_node() {
    let stores = tempfile::tempdir().expect("a folder");
    let mut cluster = Mesh::builder(ServerKind::NatsServer, 3).describe();
    for node in &mut cluster.nodes {
        let store = stores.path().join(node.name()).display().to_string();
        node.add_flags(&["-js", "-sd", &store]);
    }
    cluster.start_all().await;
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let (client, events) = watched_client(&sidecar.url()).await;
    let jetstream = jetstream::new(client.clone());

    let orders = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    // Retried, because the cluster first elects a leader for JetStream.
    let stream = e2e::found("the stream is made", TIMEOUT, async || {
        jetstream.get_or_create_stream(orders.clone()).await.ok()
    })
    .await;
    let bucket = kv::Config {
        bucket: "settings".to_owned(),
        num_replicas: 3,
        ..Default::default()
    };
    let store = e2e::found("the bucket is made", TIMEOUT, async || {
        jetstream.create_key_value(bucket.clone()).await.ok()
    })
    .await;

    publish_acknowledged(&jetstream, 1..=MESSAGES).await;
    put(&store, "colour", "blue").await;
    let answers = answer_requests(&client).await;

    let node = sidecar.node_of_session().await.expect("the session has a node");
    let index = cluster.index_of(node).expect("a node of the cluster");
    cluster.nodes[index].kill();
    session_moves_from(node, &sidecar).await;

    publish_acknowledged(&jetstream, MESSAGES + 1..=2 * MESSAGES).await;
    let value = e2e::found("the value is read", TIMEOUT, async || {
        store.get("colour").await.ok().flatten()
    })
    .await;
    assert_eq!(value, "blue");
    put(&store, "colour", "green").await;
    let reply = client
        .request("questions", "why".into())
        .await
        .expect("an answer");
    assert_eq!(reply.payload, "re:why");
    let nobody = client.request("nobody.listens", "hello".into()).await;
    assert!(nobody.is_err_and(|error| error.kind() == async_nats::RequestErrorKind::NoResponders));

    // Retried, because the other nodes elect a new leader if the stream's leader was on the dead node.
    let consumer: PullConsumer = e2e::found("the consumer is made", TIMEOUT, async || {
        stream
            .create_consumer(jetstream::consumer::pull::Config::default())
            .await
            .ok()
    })
    .await;
    // Retried, because a new consumer has no leader for a moment, and a pull then finds no responder.
    let mut received = 0;
    e2e::eventually("all messages are pulled", TIMEOUT, async || {
        let batch = consumer.batch().max_messages(2 * MESSAGES - received);
        let mut batch = batch.messages().await.expect("messages");
        while let Some(Ok(message)) = batch.next().await {
            received += 1;
            assert_eq!(message.payload, received.to_string());
            message.ack().await.expect("the acknowledgement is sent");
        }
        received == 2 * MESSAGES
    })
    .await;
    assert_eq!(
        *events.lock().expect("the lock is not poisoned"),
        [""; 0],
        "the library noticed a problem"
    );
    answers.abort();
}

/// Publishes these numbers, each until it is acknowledged. An acknowledgement may be lost with a node, and the message id keeps
/// the stream from storing a number twice.
async fn publish_acknowledged(jetstream: &jetstream::Context, numbers: impl Iterator<Item = usize>) {
    for number in numbers {
        eventually(format!("message {number} is stored"), TIMEOUT, async || {
            let publish = jetstream::message::PublishMessage::build().payload(number.to_string().into());
            let publish = publish.message_id(number.to_string());
            match jetstream.send_publish("orders.new", publish).await {
                Ok(acknowledgement) => acknowledgement.await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }
}

/// Puts a value, with retries while the servers elect a leader for the bucket.
async fn put(store: &kv::Store, key: &str, value: &'static str) {
    eventually(format!("{key} is set to {value}"), TIMEOUT, async || {
        store.put(key, value.into()).await.is_ok()
    })
    .await;
}

async fn answer_requests(client: &async_nats::Client) -> tokio::task::JoinHandle<()> {
    let mut questions = client.subscribe("questions").await.expect("a subscription");
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let Some(reply) = question.reply else { continue };
            let answer = [b"re:", question.payload.as_ref()].concat();
            // This fails if the test has ended meanwhile.
            let _ = client.publish(reply, answer.into()).await;
        }
    })
}
