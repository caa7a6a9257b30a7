//! Credentials that the sidecar holds for components that have none, or the wrong ones (promise S11).

use e2e::{Authority, Component, Library, Node, RawClient, ServerKind, Sidecar, eventually};
use nkeys::KeyPair;
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
