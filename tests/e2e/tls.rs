//! TLS at the nodes' door for clients: our broker beside `nats-server`, and the sidecar for components that speak no TLS.

use crate::scenario::all_that_components_do;
use e2e::{
    Authority, Library, Mesh, Node, Program, RawClient, ServerKind, Sidecar, TIMEOUT, eventually, peers,
};
use futures_util::StreamExt;
use serde_json::Value;
use std::time::Duration;

/// Starts a server that requires TLS, with a certificate for its address.
async fn node(kind: ServerKind, authority: &Authority, flags: &[&str]) -> Node {
    let (cert, key) = authority.certify("node", &["127.0.0.1", "localhost"]);
    let mut all = vec!["--tls", "--tlscert", &cert, "--tlskey", &key];
    all.extend(flags);
    Node::start(kind, &all).await
}

/// The old libraries of this test cannot speak TLS with these nodes at all.
#[tokio::test]
async fn s11_components_without_tls_work_through_the_sidecar_with_nodes_that_demand_it() {
    let authority = Authority::new();
    for kind in [
        ServerKind::Standin,
        ServerKind::NatsServer,
        ServerKind::OldNatsServer,
    ] {
        let nodes = [
            node(kind, &authority, &[]).await,
            node(kind, &authority, &[]).await,
        ];
        let sidecar = Sidecar::builder()
            .upstream([nodes[0].url()])
            .setting("tls.node.ca_file", authority.file())
            .start()
            .await;
        let mut client = RawClient::open(sidecar.address()).await;
        let info = client.info();
        for key in ["tls_required", "tls_available", "tls_verify"] {
            assert_ne!(info[key], Value::Bool(true), "{kind:?}: {info}");
        }
        client.subscribe("a", "1").await;
        client.publish("a", "x").await;
        client.expect_message("1", "a", "x").await;
        for library in [Library::Node02, Library::NatsPython, Library::C] {
            all_that_components_do(library, &sidecar.url(), &sidecar.url()).await;
        }
    }
}

#[tokio::test]
async fn s11_a_session_moves_between_nodes_that_demand_tls() {
    let authority = Authority::new();
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let mut nodes = [
            node(kind, &authority, &[]).await,
            node(kind, &authority, &[]).await,
        ];
        let sidecar = Sidecar::builder()
            .upstream(nodes.iter().map(|node| format!("tls://{}", node.address())))
            .setting("tls.node.ca_file", authority.file())
            .start()
            .await;
        let mut client = RawClient::open(sidecar.address()).await;
        client.subscribe("a", "1").await;
        client.flush().await;
        for (killed, other) in [(0, 1), (1, 0), (0, 1)] {
            nodes[killed].kill();
            eventually(
                "the session is on the other node",
                Duration::from_secs(20),
                async || {
                    nodes[other]
                        .varz("connections")
                        .await
                        .is_some_and(|count| count > 0)
                        && nodes[other]
                            .num_subscriptions()
                            .await
                            .is_some_and(|count| count > 0)
                },
            )
            .await;
            client.publish("a", format!("{killed}")).await;
            client.expect_message("1", "a", &killed.to_string()).await;
            nodes[killed].restart().await;
        }
    }
}

#[tokio::test]
async fn a_node_whose_certificate_does_not_prove_it_is_not_used_and_the_log_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (cert, key) = authority.certify("elsewhere", &["elsewhere.example"]);
    let elsewhere = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let elsewhere = Node::start(ServerKind::Standin, &elsewhere).await;
    let good = node(ServerKind::Standin, &authority, &[]).await;
    let ca = |authority: &Authority| ("tls.node.ca_file", authority.file());
    for (case, node, setting, reason) in [
        ("unknown authority", &good, ca(&other), "UnknownIssuer"),
        ("wrong name", &elsewhere, ca(&authority), "not valid for name"),
        (
            "TLS is off",
            &good,
            ("tls.node.mode", "off".to_owned()),
            "requires TLS, which is off",
        ),
    ] {
        let mut sidecar = Sidecar::builder()
            .upstream([node.url()])
            .setting(setting.0, setting.1)
            .start_listening()
            .await;
        let line = sidecar
            .process()
            .wait_for_line("node cannot be used", Duration::from_secs(20))
            .await;
        assert!(line.text.contains(reason), "{case}: {}", line.text);
    }
    // The name that every node must have is set.
    let sidecar = Sidecar::builder()
        .upstream([elsewhere.url()])
        .setting("tls.node.ca_file", authority.file())
        .setting("tls.node.server_name", "elsewhere.example")
        .start()
        .await;
    RawClient::open(sidecar.address()).await.close().await;
}

/// A component behind a sidecar that offers TLS, beside the same on a node: what INFO says, and who gets in.
#[tokio::test]
async fn s11_the_sidecar_and_the_broker_offer_tls_as_nats_server_does() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("server", &["127.0.0.1"]);
    let (user_cert, user_key) = authority.certify("user", &["user"]);
    let tls = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let ca = authority.file();
    let verify = [&tls[..], &["--tlsverify", "--tlscacert", &ca]].concat();
    let plain = Node::start(ServerKind::Standin, &[]).await;
    for (flags, is_verified) in [(&tls[..], false), (&verify[..], true)] {
        let ours = Node::start(ServerKind::Standin, flags).await;
        let theirs = Node::start(ServerKind::NatsServer, flags).await;
        let sidecar = Sidecar::builder()
            .upstream([plain.url()])
            .setting("tls.component.mode", "required")
            .setting("tls.component.cert_file", cert.clone())
            .setting("tls.component.key_file", key.clone())
            .setting("tls.component.ca_file", authority.file())
            .setting("tls.component.verify", is_verified)
            .start()
            .await;
        for address in [ours.address(), theirs.address(), sidecar.address()] {
            let info = RawClient::connect(address).await.info();
            assert_eq!(info["tls_required"], true, "{address}: {info}");
            assert_eq!(info["tls_verify"] == true, is_verified, "{address}: {info}");
            assert_ne!(info["tls_available"], true, "{address}: {info}");
            for has_certificate in [false, true] {
                let options = async_nats::ConnectOptions::new()
                    .add_root_certificates(authority.file().into())
                    .require_tls(true);
                let options = match has_certificate {
                    true => options.add_client_certificate(user_cert.clone().into(), user_key.clone().into()),
                    false => options,
                };
                let connected = options.connect(format!("tls://{address}")).await;
                assert_eq!(
                    connected.is_ok(),
                    has_certificate || !is_verified,
                    "{address}: {connected:?}"
                );
                let Ok(client) = connected else { continue };
                let mut messages = client.subscribe("a").await.expect("a subscription");
                client.publish("a", "x".into()).await.expect("a publish");
                let message = tokio::time::timeout(Duration::from_secs(10), messages.next()).await;
                assert_eq!(message.expect("in time").expect("a message").payload, "x");
            }
            // Bytes that are not TLS end the connection.
            let mut client = RawClient::connect(address).await;
            client.send("CONNECT {}\r\nPING\r\n").await;
            client.read_to_end().await;
        }
    }
}

#[tokio::test]
async fn s11_components_with_and_without_tls_share_a_port_where_it_is_optional() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("server", &["127.0.0.1"]);
    let mut node = Node::start(ServerKind::Standin, &[]).await;
    let sidecar = Sidecar::builder().upstream([node.url()]);
    for (key_of, value) in [("mode", "optional"), ("cert_file", &cert), ("key_file", &key)] {
        node.set(&format!("tls.client.{key_of}"), value);
    }
    node.restart().await;
    let sidecar = sidecar
        .setting("tls.component.mode", "optional")
        .setting("tls.component.cert_file", cert.clone())
        .setting("tls.component.key_file", key.clone())
        .start()
        .await;
    for address in [node.address(), sidecar.address()] {
        let info = RawClient::connect(address).await.info();
        assert_eq!(info["tls_available"], true, "{address}: {info}");
        assert_ne!(info["tls_required"], true, "{address}: {info}");
        let mut plain = RawClient::open(address).await.subscribed("a").await;
        let options = async_nats::ConnectOptions::new()
            .add_root_certificates(authority.file().into())
            .require_tls(true);
        let client = options
            .connect(format!("tls://{address}"))
            .await
            .expect("a connection");
        client.publish("a", "x".into()).await.expect("a publish");
        client.flush().await.expect("a flush");
        plain.expect_message("1", "a", "x").await;
    }
}

/// Large messages do not fit into what a socket takes at once, so that encrypted bytes wait.
#[tokio::test]
async fn large_messages_pass_whole_and_in_order_over_tls_on_both_sides_of_the_sidecar() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("server", &["127.0.0.1"]);
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let node = node(kind, &authority, &[]).await;
        let sidecar = Sidecar::builder()
            .upstream([node.url()])
            .setting("tls.node.ca_file", authority.file())
            .setting("tls.component.mode", "required")
            .setting("tls.component.cert_file", cert.clone())
            .setting("tls.component.key_file", key.clone())
            .start()
            .await;
        let options = async_nats::ConnectOptions::new()
            .add_root_certificates(authority.file().into())
            .require_tls(true);
        let client = options
            .connect(format!("tls://{}", sidecar.address()))
            .await
            .expect("a connection");
        let mut messages = client.subscribe("a").await.expect("a subscription");
        client.flush().await.expect("a flush");
        let publisher = client.clone();
        let publishing = tokio::spawn(async move {
            for number in 0..200_usize {
                let payload = vec![number as u8; number * 5000];
                publisher.publish("a", payload.into()).await.expect("a publish");
            }
            publisher.flush().await.expect("a flush");
        });
        for number in 0..200_usize {
            let message = tokio::time::timeout(Duration::from_secs(20), messages.next()).await;
            let payload = message.expect("in time").expect("a message").payload;
            assert!(payload.len() == number * 5000 && payload.iter().all(|byte| *byte == number as u8));
        }
        publishing.await.expect("the publisher ends");
    }
}

#[tokio::test]
async fn nodes_with_tls_on_their_routes_form_a_cluster_and_refuse_others() {
    let (authority, other) = (Authority::new(), Authority::new());
    let settings = |authority: &Authority, owner: &str| {
        let (cert, key) = authority.certify(owner, &["127.0.0.1"]);
        let text = |text: &str| text.to_owned();
        [
            (text("tls.route.mode"), text("required")),
            (text("tls.route.cert_file"), cert),
            (text("tls.route.key_file"), key),
            (text("tls.route.ca_file"), authority.file()),
        ]
    };
    let mut mesh = Mesh::builder(ServerKind::Standin, 3).describe();
    for (index, node) in mesh.nodes.iter_mut().enumerate() {
        for (key, value) in settings(&authority, &format!("n{index}")) {
            node.set(&key, value);
        }
    }
    for index in 0..3 {
        mesh.nodes[index].restart().await;
    }
    mesh.wait_until_linked(&[0, 1, 2]).await;
    let mut subscriber = mesh.nodes[0].subscriber("a").await;
    let mut publisher = mesh.nodes[2].client().await;
    subscriber.flush().await;
    for size in [1_usize, 1000, 1_000_000] {
        let payload = "x".repeat(size);
        publisher.publish("a", &payload).await;
        subscriber.expect_message("1", "a", &payload).await;
    }
    // A node with another authority, and one without TLS.
    for has_tls in [true, false] {
        let stranger = mesh.add();
        if has_tls {
            for (key, value) in settings(&other, "stranger") {
                mesh.nodes[stranger].set(&key, value);
            }
        }
        mesh.nodes[stranger].launch();
        mesh.nodes[stranger]
            .logs(if has_tls {
                "TLS handshake failed"
            } else {
                "no route with"
            })
            .await;
        mesh.nodes[stranger].kill();
    }
    mesh.wait_until_linked(&[0, 1, 2]).await;
}

/// A certificate with another name shows which one a new connection gets.
#[tokio::test]
async fn a_replaced_certificate_is_used_for_new_connections_and_the_others_stand() {
    let authority = Authority::new();
    let mut node = node(ServerKind::Standin, &authority, &[]).await;
    let (cert, key) = authority.certify("sidecar", &["127.0.0.1"]);
    let mut sidecar = Sidecar::builder()
        .upstream([format!("tls://{}", node.address())])
        .setting("tls.node.ca_file", authority.file())
        .setting("tls.component.mode", "required")
        .setting("tls.component.cert_file", cert)
        .setting("tls.component.key_file", key)
        .start()
        .await;
    for owner in ["node", "sidecar"] {
        let address = match owner {
            "node" => node.address(),
            _ => sidecar.address(),
        };
        let connect = async || {
            let options = async_nats::ConnectOptions::new()
                .add_root_certificates(authority.file().into())
                .require_tls(true);
            options.connect(format!("tls://{address}")).await
        };
        let client = connect().await.expect("a connection");
        let mut messages = client.subscribe("a").await.expect("a subscription");
        for (names, is_accepted) in [(["elsewhere.example"], false), (["127.0.0.1"], true)] {
            authority.certify(owner, &names);
            let changed = async || connect().await.is_ok() == is_accepted;
            eventually(
                "new connections get the new certificate",
                Duration::from_secs(20),
                changed,
            )
            .await;
            client.publish("a", "x".into()).await.expect("a publish");
            let message = tokio::time::timeout(Duration::from_secs(10), messages.next()).await;
            assert_eq!(message.expect("in time").expect("a message").payload, "x");
        }
        assert_eq!(
            client
                .statistics()
                .connects
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
    }
    // Files that cannot be used change nothing.
    let mark = node.process().mark();
    std::fs::write(authority.folder().join("node.pem"), "no PEM").expect("the file is written");
    node.logs_after(mark, "settings were not reloaded").await;
    let mark = sidecar.process().mark();
    std::fs::write(authority.folder().join("sidecar.key"), "no PEM").expect("the file is written");
    sidecar
        .process()
        .wait_for_line_after(mark, "settings were not reloaded", Duration::from_secs(20))
        .await;
    for address in [node.address(), sidecar.address()] {
        let options = async_nats::ConnectOptions::new()
            .add_root_certificates(authority.file().into())
            .require_tls(true);
        options
            .connect(format!("tls://{address}"))
            .await
            .expect("a connection");
    }
    let expiry = sidecar
        .metric("standin_certificate_expires_seconds{door=tls.component}")
        .await;
    assert!(expiry > 1_700_000_000.0, "{expiry}");
}

/// Peers that speak no TLS, stop in the handshake, or send bytes between INFO and TLS.
#[tokio::test]
async fn a_client_that_does_not_make_the_handshake_is_closed_in_time_and_others_are_served() {
    let authority = Authority::new();
    let mut node = node(ServerKind::Standin, &authority, &[]).await;
    node.set("tls.client.timeout_ms", 300);
    node.restart().await;
    let (cert, key) = authority.certify("sidecar", &["127.0.0.1"]);
    let sidecar = Sidecar::builder()
        .upstream([format!("tls://{}", node.address())])
        .setting("tls.node.ca_file", authority.file())
        .setting("tls.component.mode", "required")
        .setting("tls.component.cert_file", cert)
        .setting("tls.component.key_file", key)
        .setting("tls.component.timeout_ms", 300)
        .start()
        .await;
    for address in [node.address(), sidecar.address()] {
        let mut stalled = Vec::new();
        for _ in 0..50 {
            let mut client = RawClient::connect(address).await;
            // The beginning of a ClientHello.
            client.send(b"\x16\x03\x01\x02\x00").await;
            stalled.push(client);
        }
        let options = async_nats::ConnectOptions::new()
            .add_root_certificates(authority.file().into())
            .require_tls(true);
        let client = options
            .connect(format!("tls://{address}"))
            .await
            .expect("a connection");
        client.flush().await.expect("a flush");
        for mut client in stalled {
            client.read_to_end().await;
        }
        let mut silent = RawClient::connect(address).await;
        silent.read_to_end().await;
        client.flush().await.expect("a flush");
    }
}

const DOMAIN_COMPONENT: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 25];

/// With `verify_and_map` the certificate names the user: an e-mail address, a DNS name, or the subject.
#[tokio::test]
async fn a_client_is_the_user_that_its_certificate_names_as_in_nats_server() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("node", &["127.0.0.1"]);
    let mail = |params: &mut rcgen::CertificateParams| {
        let name = "svc@example.com".try_into().expect("a name");
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name(name));
    };
    let of_acme = |params: &mut rcgen::CertificateParams| {
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::OrganizationName, "acme");
        name.push(rcgen::DnType::CustomDnType(DOMAIN_COMPONENT.to_vec()), "example");
    };
    let certificates = [
        (
            "e-mail",
            authority.certify_with("mail", &["other.example.com"], mail),
            Some("one"),
        ),
        (
            "host",
            authority.certify("host", &["svc.example.com"]),
            Some("two"),
        ),
        ("subject", authority.certify("plain", &[]), Some("three")),
        ("unknown", authority.certify("unknown", &["127.0.0.1"]), None),
        (
            "subject in another order",
            authority.certify_with("reordered", &[], of_acme),
            Some("one"),
        ),
        (
            "subject without its domain component",
            authority.certify_with("shortened", &[], of_acme),
            Some("two"),
        ),
    ];
    let conf = authority.folder().join("nats.conf");
    let text = format!(
        "tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {:?}, insecure: true, verify_and_map: true }}\n\
         authorization {{ users: [\n\
         {{ user: \"O=acme, DC=example, CN=reordered\", permissions: {{ publish: one }} }}\n\
         {{ user: \"CN=shortened,O=acme\", permissions: {{ publish: two }} }}\n\
         {{ user: \"svc@example.com\", permissions: {{ publish: one, subscribe: \"_INBOX.>\" }} }}\n\
         {{ user: svc.example.com, permissions: {{ publish: two, subscribe: \"_INBOX.>\" }} }}\n\
         {{ user: \"CN=plain\", permissions: {{ publish: three, subscribe: [\"_INBOX.>\", one, two, three] }} }}\n] }}\n",
        authority.file()
    );
    std::fs::write(&conf, text).expect("the settings are written");
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let node = Node::start(kind, &["-c", &conf.display().to_string()]).await;
        let connect = async |(cert, key): &(String, String)| {
            let options = async_nats::ConnectOptions::new()
                .require_tls(true)
                .add_root_certificates(authority.file().into())
                .add_client_certificate(cert.into(), key.into());
            options.connect(node.url()).await
        };
        let reader = connect(&certificates[2].1).await.expect("the reader is admitted");
        let mut all = Vec::new();
        for subject in ["one", "two", "three"] {
            all.push(reader.subscribe(subject).await.expect("a subscription"));
        }
        reader.flush().await.expect("a flush");
        let mut received = futures_util::stream::select_all(all);
        for (case, certificate, allowed) in &certificates {
            let connected = connect(certificate).await;
            assert_eq!(
                connected.is_ok(),
                allowed.is_some(),
                "{kind:?} {case}: {connected:?}"
            );
            let (Ok(client), Some(allowed)) = (connected, allowed) else {
                continue;
            };
            for subject in ["one", "two", "three"] {
                client.publish(subject, "x".into()).await.expect("a publish");
            }
            client.flush().await.expect("a flush");
            let message = received.next().await.expect("a message");
            assert_eq!(message.subject.as_str(), *allowed, "{kind:?} {case}");
        }
        // Without a certificate no password helps.
        let without = async_nats::ConnectOptions::with_user_and_password("CN=plain".into(), String::new());
        let without = without
            .require_tls(true)
            .add_root_certificates(authority.file().into());
        assert!(without.connect(node.url()).await.is_err(), "{kind:?}");
    }
}

/// Both programs warn of a certificate that ends soon, with `--check` and in the log, in the same words.
#[tokio::test]
async fn a_certificate_that_ends_soon_gives_a_warning_with_check_and_at_the_start() {
    let authority = Authority::new();
    let end = std::time::SystemTime::now() + Duration::from_secs(5 * 24 * 3600 + 60);
    let soon = |params: &mut rcgen::CertificateParams| params.not_after = end.into();
    let (cert, key) = authority.certify_with("soon", &["127.0.0.1"], soon);
    let warning = format!("certificate expires soon, replace it: {cert}");
    let flags = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let mut node = Node::start(ServerKind::Standin, &flags).await;
    node.logs(&warning).await;
    let tables = format!(
        "[[listener]]\nlisten = [\"ADDRESS\"]\n\
         tls = {{ mode = \"optional\", cert_file = {cert:?}, key_file = {key:?} }}\n"
    );
    let sidecar = Sidecar::builder()
        .upstream(["127.0.0.1:1".to_owned()])
        .listeners(&tables)
        .start()
        .await;
    let file = sidecar.folder().join("proxy.toml");
    for program in [
        Program::new(peers::broker_binary()).args(flags).arg("-t"),
        Program::new(peers::sidecar_binary())
            .arg("--config")
            .arg(&file)
            .arg("--check"),
    ] {
        let mut process = program.start("check");
        assert!(process.wait_for_end(TIMEOUT).await.success());
        let lines: Vec<String> = process.lines().iter().map(|line| line.text.clone()).collect();
        assert!(
            lines
                .iter()
                .any(|line| line.contains(&warning) && line.contains("days=5")),
            "{lines:?}"
        );
    }
}
