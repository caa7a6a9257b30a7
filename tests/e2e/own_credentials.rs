//! Credentials that the sidecar holds for components that have none, or the wrong ones (promise S11).

use crate::scenario::all_that_components_do;
use data_encoding::BASE64URL_NOPAD;
use e2e::{Authority, Component, Library, Node, RawClient, ServerKind, Sidecar, eventually};
use nkeys::KeyPair;
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

const CONNECTED_WITHIN: Duration = Duration::from_secs(20);

/// A component of 2013 has no TLS and no nkeys, and the nodes demand both.
#[tokio::test]
async fn s11_an_old_component_works_with_nodes_that_demand_tls_and_an_nkey_also_after_a_kill() {
    let (authority, key) = (Authority::new(), KeyPair::new_user());
    let folder = TempDir::new().expect("a folder");
    let (cert, cert_key) = authority.certify("node", &["127.0.0.1"]);
    let conf = folder.path().join("nats.conf");
    let text = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        key.public_key()
    );
    std::fs::write(&conf, text).expect("the settings are written");
    let seed = folder.path().join("seed");
    std::fs::write(&seed, key.seed().expect("a seed") + "\n").expect("the seed is written");
    let conf = conf.display().to_string();
    let flags = ["-c", &conf, "--tls", "--tlscert", &cert, "--tlskey", &cert_key];
    for kind in [
        ServerKind::Standin,
        ServerKind::NatsServer,
        ServerKind::OldNatsServer,
    ] {
        let mut nodes = [Node::start(kind, &flags).await, Node::start(kind, &flags).await];
        let sidecar = Sidecar::builder()
            .nodes(&nodes)
            .setting("tls.node.ca_file", authority.file())
            .setting("credentials.nkey_seed_file", seed.display().to_string())
            .start()
            .await;
        let mut component = Component::connect(Library::Node02, &sidecar.url()).await;
        component.subscribe("all", ">");
        component.flush().await;
        let mut client = RawClient::open(sidecar.address()).await;
        assert_ne!(
            client.info()["auth_required"],
            true,
            "the component need not know"
        );
        client.subscribe("a", "1").await;
        client.flush().await;
        for (killed, other) in [(0, 1), (1, 0)] {
            nodes[killed].kill();
            eventually(
                "both sessions are on the other node",
                CONNECTED_WITHIN,
                async || {
                    nodes[other]
                        .num_subscriptions()
                        .await
                        .is_some_and(|count| count >= 2)
                },
            )
            .await;
            client.publish("a", killed.to_string()).await;
            client.expect_message("1", "a", &killed.to_string()).await;
            nodes[killed].restart().await;
        }
        component.flush().await;
        assert!(component.troubles().is_empty(), "{:?}", component.troubles());
    }
}

#[tokio::test]
async fn s11_credentials_of_the_sidecar_are_used_if_the_component_has_none_or_always() {
    let node = Node::start(ServerKind::NatsServer, &["--user", "a", "--pass", "b"]).await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "b\n").expect("the password is written");
    for (replaces, connect, is_accepted) in [
        (false, "CONNECT {\"verbose\":false}", true),
        (
            false,
            "CONNECT {\"verbose\":false,\"user\":\"x\",\"pass\":\"y\"}",
            false,
        ),
        (
            true,
            "CONNECT {\"verbose\":false,\"user\":\"x\",\"pass\":\"y\"}",
            true,
        ),
        (true, "CONNECT {\"verbose\":false,\"auth_token\":\"x\"}", true),
    ] {
        let sidecar = Sidecar::builder()
            .upstream([node.url()])
            .setting("credentials.user", "a")
            .setting("credentials.password_file", file.display().to_string())
            .setting("credentials.replace", replaces)
            .start()
            .await;
        let mut client = RawClient::connect(sidecar.address()).await;
        client.send(format!("{connect}\r\nPING\r\n")).await;
        let answer = client.read_frame().await;
        assert_eq!(
            answer.verb() == "PONG",
            is_accepted,
            "{replaces} {connect}: {answer:?}"
        );
    }
}

/// Returns a JWT of `kind` about `subject`, signed by `issuer`, as the tools of NATS make it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str) -> String {
    let claims = json!({
        "jti": kind, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": kind,
        "nats": {"type": kind, "version": 2, "subs": -1, "data": -1, "payload": -1, "limits": {
            "subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true
        }},
    });
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let encoded = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let body = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = issuer.sign(body.as_bytes()).expect("a signature");
    format!("{body}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// Writes the settings of a server with an operator, which knows its users only by their JWTs, and the credentials of one user. Returns
/// both files.
fn operator_and_user(folder: &TempDir) -> (String, String) {
    let (operator, account, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let conf = folder.path().join("nats.conf");
    let text = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        jwt(&operator, &operator, "operator"),
        account.public_key(),
        jwt(&operator, &account, "account")
    );
    std::fs::write(&conf, text).expect("the settings are written");
    let creds = folder.path().join("user.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, "user"),
        user.seed().expect("a seed")
    );
    std::fs::write(&creds, text).expect("the credentials are written");
    (conf.display().to_string(), creds.display().to_string())
}

#[tokio::test]
async fn s11_a_credentials_file_of_the_sidecar_opens_nodes_with_an_operator_also_after_a_kill() {
    let folder = TempDir::new().expect("a folder");
    let (conf, creds) = operator_and_user(&folder);
    let mut nodes = [
        Node::start(ServerKind::NatsServer, &["-c", &conf]).await,
        Node::start(ServerKind::NatsServer, &["-c", &conf]).await,
    ];
    let sidecar = Sidecar::builder()
        .nodes(&nodes)
        .setting("credentials.creds_file", creds)
        .start()
        .await;
    let mut client = RawClient::open(sidecar.address()).await;
    client.subscribe("a", "1").await;
    client.flush().await;
    for (killed, other) in [(0, 1), (1, 0)] {
        nodes[killed].kill();
        eventually("the session is on the other node", CONNECTED_WITHIN, async || {
            nodes[other]
                .varz("connections")
                .await
                .is_some_and(|count| count > 0)
        })
        .await;
        client.publish("a", killed.to_string()).await;
        client.expect_message("1", "a", &killed.to_string()).await;
        nodes[killed].restart().await;
    }
}

/// A component that signs itself is closed when its node dies, and its library reconnects and signs again.
#[tokio::test]
async fn s11_libraries_that_have_credentials_work_through_the_sidecar_also_after_a_kill() {
    let folder = TempDir::new().expect("a folder");
    let (conf, creds) = operator_and_user(&folder);
    let mut nodes = [
        Node::start(ServerKind::NatsServer, &["-c", &conf]).await,
        Node::start(ServerKind::NatsServer, &["-c", &conf]).await,
    ];
    let mut sidecar = Sidecar::builder().upstream([nodes[0].url()]).start().await;
    let url = format!("{} creds={creds}", sidecar.url());
    let mut components = Vec::new();
    for library in Library::ALL.into_iter().filter(|library| library.signs()) {
        all_that_components_do(library, &url, &url).await;
        let mut component = Component::connect(library, &url).await;
        component.subscribe("own", &format!("to.{library:?}"));
        component.flush().await;
        components.push(component);
    }
    sidecar.reload_with("nodes.upstream", [nodes[0].url(), nodes[1].url()].as_slice());
    eventually("both nodes are known", CONNECTED_WITHIN, async || {
        sidecar.node_rows().await.len() == 2
    })
    .await;
    nodes[0].kill();
    for component in &mut components {
        let subject = format!("to.{:?}", component.library());
        eventually("the component is served again", CONNECTED_WITHIN, async || {
            component.say(&format!("pub {subject} x"));
            component.payloads("own").contains(&"x".to_owned())
        })
        .await;
    }
}

/// The nodes demand a certificate, which only the sidecar has, and the component's own password. What the component may do, and in
/// which account, stays the same on the next node.
#[tokio::test]
async fn s11_a_component_keeps_its_account_and_permissions_on_nodes_that_demand_a_certificate_after_a_kill() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("node", &["127.0.0.1"]);
    let (own_cert, own_key) = authority.certify("sidecar", &[]);
    let conf = authority.folder().join("nats.conf").display().to_string();
    let text = format!(
        "tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {:?}, verify: true }}\n\
         accounts {{\n\
         A {{ users: [ {{ user: a, password: a, permissions: {{ publish: {{ deny: closed }}, subscribe: {{ deny: closed }} }} }} ] }}\n\
         B {{ users: [ {{ user: b, password: b }} ] }}\n}}\n",
        authority.file()
    );
    std::fs::write(&conf, text).expect("the settings are written");
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let mut nodes = [
            Node::start(kind, &["-c", &conf]).await,
            Node::start(kind, &["-c", &conf]).await,
        ];
        let sidecar = Sidecar::builder()
            .nodes(&nodes)
            .setting("tls.node.ca_file", authority.file())
            .setting("tls.node.cert_file", own_cert.clone())
            .setting("tls.node.key_file", own_key.clone())
            .start()
            .await;
        let connect = |user| format!("CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{user}\"}}");
        let mut a = RawClient::open_with(sidecar.address(), &connect("a")).await;
        let mut b = RawClient::open_with(sidecar.address(), &connect("b")).await;
        for client in [&mut a, &mut b] {
            client.subscribe(">", "1").await;
            client.flush().await;
        }
        for (killed, other) in [(None, 0), (Some(0), 1), (Some(1), 0)] {
            if let Some(killed) = killed {
                let killed: &mut Node = &mut nodes[killed];
                killed.kill();
            }
            let on_one_node = async || killed.is_none() || nodes[other].varz("connections").await >= Some(2);
            eventually("both sessions are on one node", CONNECTED_WITHIN, on_one_node).await;
            a.publish("closed", "x").await;
            a.expect_line("-ERR 'Permissions Violation for Publish to \"closed\"'")
                .await;
            a.subscribe("closed", "2").await;
            a.expect_line("-ERR 'Permissions Violation for Subscription to \"closed\"'")
                .await;
            // The other account's message would come first.
            b.publish("x", "of b").await;
            b.expect_message("1", "x", "of b").await;
            a.publish("x", "of a").await;
            a.expect_message("1", "x", "of a").await;
            b.publish("closed", "of b").await;
            b.expect_message("1", "closed", "of b").await;
            if let Some(killed) = killed {
                nodes[killed].restart().await;
            }
        }
    }
}

/// Sends CONNECT with the signature of the nonce in INFO, and waits until a node has accepted it.
async fn sign_in(client: &mut RawClient, key: &KeyPair) {
    let info = client.info();
    let nonce = info["nonce"].as_str().unwrap_or_default();
    let connect = json!({
        "verbose": false, "pedantic": false, "protocol": 1, "nkey": key.public_key(),
        "sig": BASE64URL_NOPAD.encode(&key.sign(nonce.as_bytes()).expect("a signature")),
    });
    client.send(format!("CONNECT {connect}\r\nPING\r\n")).await;
    client.expect_line("PONG").await;
}

/// Nobody but the component can sign the nonce of the next node. A close without a word makes its library reconnect and sign.
#[tokio::test]
async fn s11_a_component_that_signs_itself_is_closed_without_a_word_unless_the_sidecar_signs_for_it() {
    let (key, other_key) = (KeyPair::new_user(), KeyPair::new_user());
    let folder = TempDir::new().expect("a folder");
    let conf = folder.path().join("nats.conf");
    let text = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        key.public_key()
    );
    std::fs::write(&conf, text).expect("the settings are written");
    let seed = folder.path().join("seed");
    std::fs::write(&seed, key.seed().expect("a seed")).expect("the seed is written");
    let conf = conf.display().to_string();
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        for sidecar_signs in [false, true] {
            let mut nodes = [
                Node::start(kind, &["-c", &conf]).await,
                Node::start(kind, &["-c", &conf]).await,
            ];
            let mut sidecar = Sidecar::builder().upstream([nodes[0].url()]);
            if sidecar_signs {
                sidecar = sidecar
                    .setting("credentials.nkey_seed_file", seed.display().to_string())
                    .setting("credentials.replace", true);
            }
            let mut sidecar = sidecar.start().await;
            let mut client = RawClient::connect(sidecar.address()).await;
            // With the sidecar's key the component's is not even looked at.
            sign_in(&mut client, if sidecar_signs { &other_key } else { &key }).await;
            client.subscribe("a", "1").await;
            client.flush().await;
            sidecar.reload_with("nodes.upstream", [nodes[0].url(), nodes[1].url()].as_slice());
            eventually("both nodes are known", CONNECTED_WITHIN, async || {
                sidecar.node_rows().await.len() == 2
            })
            .await;
            nodes[0].kill();
            let closed = "standin_sessions_closed_total{reason=signed}";
            if sidecar_signs {
                client.publish("a", "x").await;
                client.expect_message("1", "a", "x").await;
                assert_eq!(sidecar.metric(closed).await, 0.0, "{kind:?}");
                continue;
            }
            let (bytes, _) = client.read_to_end().await;
            let bytes = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!bytes.contains("-ERR"), "{kind:?}: {bytes}");
            eventually("the reason is counted", CONNECTED_WITHIN, async || {
                sidecar.metric(closed).await == 1.0
            })
            .await;
            sign_in(&mut RawClient::connect(sidecar.address()).await, &key).await;
        }
    }
}
