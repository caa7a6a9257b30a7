//! Users with a key, on our broker and on `nats-server`.

use e2e::{Node, RawClient, ServerKind};
use nkeys::KeyPair;
use tempfile::TempDir;

#[tokio::test]
async fn a_user_with_a_key_gets_in_and_others_do_not_as_in_nats_server() {
    let folder = TempDir::new().expect("a folder");
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let conf = folder.path().join("nats.conf");
    let text = format!(
        "authorization {{ users: [ {{ nkey: {} }}, {{ user: a, password: b }} ] }}\n",
        user.public_key()
    );
    std::fs::write(&conf, text).expect("the settings are written");
    let conf = conf.display().to_string();
    for kind in [
        ServerKind::Standin,
        ServerKind::NatsServer,
        ServerKind::OldNatsServer,
    ] {
        let node = Node::start(kind, &["-c", &conf]).await;
        let info = RawClient::connect(node.address()).await.info();
        assert_eq!(info["auth_required"], true, "{kind:?}: {info}");
        assert_eq!(info["nonce"].as_str().map(str::len), Some(15), "{kind:?}: {info}");
        for (case, options, is_accepted) in [
            (
                "the key",
                async_nats::ConnectOptions::with_nkey(user.seed().expect("a seed")),
                true,
            ),
            (
                "another key",
                async_nats::ConnectOptions::with_nkey(stranger.seed().expect("a seed")),
                false,
            ),
            (
                "a password",
                async_nats::ConnectOptions::with_user_and_password("a".into(), "b".into()),
                true,
            ),
            ("nothing", async_nats::ConnectOptions::new(), false),
        ] {
            let connected = options.connect(node.url()).await;
            assert_eq!(connected.is_ok(), is_accepted, "{kind:?} {case}: {connected:?}");
        }
        // The key alone, without a signature, is no proof.
        let mut client = RawClient::connect(node.address()).await;
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"nkey\":\"{}\"}}\r\nPING\r\n",
            user.public_key()
        );
        client.send(connect).await;
        client.expect("-ERR 'Authorization Violation'\r\n").await;
        // Where no user has a key, that of a client is ignored.
        let node = Node::start(kind, &["--user", "a", "--pass", "b"]).await;
        let options = async_nats::ConnectOptions::with_nkey(user.seed().expect("a seed"))
            .user_and_password("a".into(), "b".into());
        let connected = options.connect(node.url()).await;
        assert!(connected.is_ok(), "{kind:?}: {connected:?}");
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"nkey\":\"{}\",\"user\":\"a\",\"pass\":\"b\"}}",
            user.public_key()
        );
        RawClient::open_with(node.address(), &connect).await;
    }
}
