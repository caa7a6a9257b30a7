//! `--embedded`: what a newcomer starts first.

use e2e::{Component, Library, PATIENCE, Program, peers, port};

#[tokio::test]
async fn an_old_client_works_on_an_embedded_node() {
    let address = port::free_address();
    let mut process = Program::new(peers::sidecar_binary())
        .args(["--embedded", "--listen"])
        .arg(address.to_string())
        .start("standin-proxy --embedded");
    process.wait_for_line("not for production", PATIENCE).await;
    process.wait_for_line("listening for components", PATIENCE).await;
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
