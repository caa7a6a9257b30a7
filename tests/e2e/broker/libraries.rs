//! Each client library does all that components do, connected directly to the broker.

use crate::scenario::all_that_components_do;
use e2e::{Authority, Library, Node, ServerKind, TIMEOUT};
use futures_util::StreamExt;
use nkeys::KeyPair;

#[tokio::test]
async fn each_library_works_on_the_broker() {
    let broker = Node::start(ServerKind::Standin, &[]).await;
    for library in Library::ALL {
        all_that_components_do(library, &broker.url(), &broker.url()).await;
    }
}

/// Each library logs in by all that it can of: a certificate of the server, one of its own, and a key.
#[tokio::test]
async fn libraries_log_in_with_tls_certificates_and_keys_as_on_nats_server() {
    let (authority, user) = (Authority::new(), KeyPair::new_user());
    let (cert, key) = authority.certify("server", &["127.0.0.1", "localhost"]);
    let (own_cert, own_key) = authority.certify("component", &[]);
    let (ca, nkey) = (authority.file(), user.public_key());
    let seed = authority.folder().join("seed");
    std::fs::write(&seed, user.seed().expect("a seed")).expect("the seed is written");

    let tls = format!("cert_file: {cert:?}, key_file: {key:?}");
    let users = format!("authorization {{ users: [ {{ nkey: {nkey} }} ] }}\n");
    let trusts = format!("ca={ca}");
    let proves = format!("ca={ca} cert={own_cert} key={own_key}");
    let signs = format!("nkey={nkey} seed={}", seed.display());
    for (case, text, options) in [
        ("tls", format!("tls {{ {tls} }}\n"), trusts.clone()),
        (
            "certificate",
            format!("tls {{ {tls}, ca_file: {ca:?}, verify: true }}\n"),
            proves,
        ),
        ("key", users.clone(), signs.clone()),
        (
            "both",
            format!("tls {{ {tls} }}\n{users}"),
            format!("{trusts} {signs}"),
        ),
    ] {
        let conf = authority
            .folder()
            .join(format!("{case}.conf"))
            .display()
            .to_string();
        std::fs::write(&conf, text).expect("the settings are written");
        for kind in [ServerKind::Standin, ServerKind::NatsServer] {
            let node = Node::start(kind, &["-c", &conf]).await;
            let url = format!("{} {options}", node.url());
            for library in Library::WITH_TLS {
                if options.contains("seed") && !library.signs() {
                    continue;
                }
                all_that_components_do(library, &url, &url).await;
            }
        }
    }
}

/// The current Rust client runs in the process of the test.
#[tokio::test]
async fn rust_works_on_the_broker() {
    let broker = Node::start(ServerKind::Standin, &["--user", "a", "--pass", "b"]).await;
    let options = || async_nats::ConnectOptions::with_user_and_password("a".to_owned(), "b".to_owned());
    let client = options().connect(broker.url()).await.expect("admitted");
    let refused = async_nats::connect(broker.url())
        .await
        .expect_err("a client without a password is refused");
    assert_eq!(
        refused.kind(),
        async_nats::ConnectErrorKind::AuthorizationViolation
    );

    let mut all = client.subscribe("orders.>").await.expect("subscribed");
    let mut members = Vec::new();
    for name in 0..3 {
        let member = client.queue_subscribe("orders.new", "workers".to_owned()).await;
        members.push(member.expect("subscribed").map(move |_| name));
    }
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("kind", "test");
    for number in 0..90 {
        let publishing =
            client.publish_with_headers("orders.new", headers.clone(), number.to_string().into());
        publishing.await.expect("published");
    }
    client.flush().await.expect("flushed");
    for number in 0..90 {
        let message = all.next().await.expect("a message");
        assert_eq!(message.payload, number.to_string());
        assert_eq!(
            message
                .headers
                .expect("headers")
                .get("kind")
                .map(|kind| kind.as_str()),
            Some("test")
        );
    }
    let mut shares = [0; 3];
    let mut taken = futures_util::stream::select_all(members).take(90);
    while let Some(name) = tokio::time::timeout(TIMEOUT, taken.next())
        .await
        .expect("each message reaches a member of the queue group")
    {
        shares[name] += 1;
    }
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");

    let service = options().connect(broker.url()).await.expect("admitted");
    let mut asked = service.subscribe("ask").await.expect("subscribed");
    service.flush().await.expect("flushed");
    let answering = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let reply = message.reply.expect("a reply subject");
            service.publish(reply, message.payload).await.expect("answered");
        }
    });
    let answers = (0..100).map(|number: i32| client.request("ask", number.to_string().into()));
    for (number, answer) in futures_util::future::join_all(answers)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(answer.expect("an answer").payload, number.to_string());
    }
    let nobody = client
        .request("nobody", "hi".into())
        .await
        .expect_err("no answer");
    assert_eq!(nobody.kind(), async_nats::RequestErrorKind::NoResponders);
    answering.abort();

    let mut few = client.subscribe("few").await.expect("subscribed");
    few.unsubscribe_after(2).await.expect("limited");
    for _ in 0..3 {
        client.publish("few", "x".into()).await.expect("published");
    }
    let mut got = 0;
    while few.next().await.is_some() {
        got += 1;
    }
    assert_eq!(got, 2);
    client.drain().await.expect("drained");
}
