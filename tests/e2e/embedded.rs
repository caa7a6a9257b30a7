//! `--embedded`: the sidecar with broker nodes in its own process.

use std::collections::BTreeSet;

use e2e::{Component, Library, Program, RawClient, TIMEOUT, peers, port};
use nix::sys::signal::Signal;

#[tokio::test]
async fn an_old_client_works_on_an_embedded_node() {
    let address = port::free_address();
    let mut process = Program::new(peers::sidecar_binary())
        .args(["--embedded", "--listen"])
        .arg(address.to_string())
        .start("standin-proxy --embedded");
    process.wait_for_line("not for production", TIMEOUT).await;
    process.wait_for_line("listening for components", TIMEOUT).await;
    let url = format!("nats://{address}");
    let mut component = Component::connect(Library::Node02, &url).await;
    component.subscribe("all", "hello.>");
    component.answer("ask", "re:");
    component.flush().await;
    component.publish("hello.world", "hi");
    component.expect_payloads("all", &["hi"]).await;
    assert_eq!(component.request("ask", "who").await, "re:who");
    component.assert_untroubled();
}

#[tokio::test]
async fn components_on_three_embedded_nodes_receive_messages_of_each_other() {
    let address = port::free_address();
    let mut process = Program::new(peers::sidecar_binary())
        .args(["--embedded=3", "--listen"])
        .arg(address.to_string())
        .start("standin-proxy --embedded=3");
    process.wait_for_line("listening for components", TIMEOUT).await;
    let mut components = Vec::new();
    for number in 0..12 {
        let mut component = RawClient::open(address).await;
        component.subscribe("all", &number.to_string()).await;
        component.flush().await;
        components.push(component);
    }
    let names = components
        .iter()
        .map(|component| component.info()["server_name"].to_string());
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 1, "all twelve components are on {names:?}");
    for publisher in 0..components.len() {
        let payload = format!("from {publisher}");
        components[publisher].publish("all", &payload).await;
        for (number, component) in components.iter_mut().enumerate() {
            component
                .expect_message(&number.to_string(), "all", &payload)
                .await;
        }
    }
    for component in &mut components {
        assert!(component.flush().await.is_empty(), "a message was received twice");
    }
    process.signal(Signal::SIGTERM);
    assert!(process.wait_for_end(TIMEOUT).await.success());
}
