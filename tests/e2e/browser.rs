//! The pages for people at `/` of both programs, in a real browser: what they show when a node and then the sidecar is killed. They are
//! looked at in light and dark colours and at the width of a phone, used with the keyboard, and examined for accessibility by axe.
//!
//! If the environment variable `STANDIN_SCREENSHOTS` names a folder, screenshots are written to it.

use e2e::{Mesh, Process, Program, Publishing, RawClient, ServerKind, Sidecar, ZooKeeper, eventually, peers};
use std::net::SocketAddr;
use std::time::Duration;

const TOKEN: &str = "s3cr3t-of-the-pages";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Names of the components. The last one is hostile: a script, behind a character that turns the direction of writing.
const NAMES: [&str; 6] = [
    "gorouter",
    "gorouter",
    "cloud_controller",
    "health_manager",
    "dea",
    "\u{202e}<script>window.hacked=1</script>",
];

/// Connects a component with this name and a subscription.
async fn component(address: SocketAddr, name: &str) -> RawClient {
    let connect = format!(
        r#"CONNECT {{"verbose":false,"pedantic":false,"name":"{name}","lang":"go","version":"1.2"}}"#
    );
    let client = RawClient::open_with(address, &connect).await;
    client.subscribed("router.>").await
}

/// Waits until the script `browser.js` prints this event. Fails if it prints an error, with the text of the error.
async fn wait_for(browser: &mut Process, event: &str) {
    eventually(event, TIMEOUT, async || {
        let lines = browser.lines().clone();
        let error = lines.iter().find(|line| line.text.starts_with("error "));
        assert!(error.is_none(), "{error:?}");
        lines.iter().any(|line| line.text == event)
    })
    .await;
}

#[tokio::test]
async fn the_pages_show_in_a_browser_how_a_node_and_the_sidecar_die() {
    let zookeeper = ZooKeeper::start().await;
    let mut mesh = Mesh::builder(ServerKind::Standin, 3)
        .zookeeper(zookeeper.hosts())
        .start()
        .await;
    let sidecar = Sidecar::builder().zookeeper(&zookeeper);
    let folder = tempfile::TempDir::new().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).expect("the file is written");
    let mut sidecar = sidecar
        .setting("http.token_file", token.display().to_string())
        .start_listening()
        .await;
    let mut components = Vec::new();
    for name in NAMES {
        components.push(component(sidecar.address(), name).await);
    }
    let publisher = component(sidecar.address(), "route_registrar").await;
    let traffic = Publishing::start(publisher, "p", "router.register", Duration::from_millis(20));

    let mut clients = Vec::new();
    for node in &mesh.nodes {
        clients.push(node.varz("connections").await);
    }
    let victim = (0..3).max_by_key(|at| clients[*at]).expect("a node");
    let witness = (victim + 1) % 3;
    let screenshots = std::env::var("STANDIN_SCREENSHOTS").unwrap_or_default();
    let mut browser = Program::new(peers::node())
        .arg(peers::component_source("browser.js"))
        .arg(peers::folder())
        .arg(format!("http://{}/", sidecar.http().address))
        .arg(format!("http://{}/", mesh.nodes[witness].http().address))
        .args([TOKEN, mesh.nodes[victim].name(), &screenshots])
        .start("the browser");
    wait_for(&mut browser, "shown").await;
    mesh.nodes[victim].kill();
    browser.say("killed");
    wait_for(&mut browser, "moved").await;
    sidecar.kill();
    browser.say("stopped");
    wait_for(&mut browser, "silent").await;
    drop((traffic, components));
}
