//! Sidecars in front of sidecars, and sidecars in a circle.

use super::scene::Scene;
use e2e::http::Endpoint;
use e2e::port::free_port;
use e2e::raw::CONNECT_OLD;
use e2e::{Metrics, RawClient, TIMEOUT, eventually};
use standin_proxy::{Settings, Sidecar};
use std::time::Duration;

/// Starts a sidecar at this port with this single node.
async fn sidecar_at(port: u16, upstream: &str) -> Sidecar {
    let text = format!(
        "listen = ['127.0.0.1:{port}']\nhttp.listen = '127.0.0.1:0'\nnodes.upstream = ['{upstream}']\n"
    );
    let settings = Settings::from_toml(&text).unwrap_or_else(|error| panic!("{error}"));
    Sidecar::start(settings)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn three_sidecars_in_a_row_serve_a_component() {
    let mut scene = Scene::start().await;
    let second = sidecar_at(0, &format!("nats://{}", scene.address)).await;
    let third = sidecar_at(0, &format!("nats://{}", second.addresses()[0])).await;
    let serving = async {
        let (mut node, _) = scene.node.accept_session().await;
        node.answer_ping().await;
        node.answer_ping().await;
        node.answer_ping().await;
        node
    };
    let (client, _node) = tokio::join!(RawClient::open(third.addresses()[0]), serving);
    let sidecars = client.info()["sidecars"].as_str().unwrap_or_default().to_owned();
    let mut marks: Vec<&str> = sidecars.split('-').collect();
    marks.sort_unstable();
    marks.dedup();
    assert_eq!(marks.len(), 3, "{sidecars}");
    assert!(client.info_frame().bytes().len() <= 512);
}

#[tokio::test]
async fn sidecars_in_a_circle_report_it_and_dial_at_a_limited_rate() {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let mut sidecars = Vec::new();
    for number in 0..ports.len() {
        let next = ports[(number + 1) % ports.len()];
        sidecars.push(sidecar_at(ports[number], &format!("nats://127.0.0.1:{next}")).await);
    }
    let http: Vec<Endpoint> = sidecars
        .iter()
        .map(|sidecar| Endpoint {
            address: sidecar.http_address().expect("HTTP is on"),
            netns: None,
        })
        .collect();
    let mut client = RawClient::connect(sidecars[0].addresses()[0]).await;
    client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    let sum = async |series: &str| {
        let mut sum = 0.0;
        for http in &http {
            sum += Metrics::read(http).await.value(series);
        }
        sum
    };
    eventually("a sidecar reports the circle", TIMEOUT, async || {
        for http in &http {
            let page = http.get_json("/nodez").await.unwrap_or_default();
            let error = page["items"][0]["last_error"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if error.contains("leads back to this sidecar") {
                return true;
            }
        }
        false
    })
    .await;
    let before = sum("standin_sessions_total").await;
    client.listen_for(Duration::from_secs(2)).await;
    let made = sum("standin_sessions_total").await - before;
    // Each sidecar dials a few times a second.
    assert!(made <= 30.0, "{made} sessions in 2 s");
    let mut sessions = f64::NAN;
    eventually("few sessions remain", TIMEOUT, async || {
        sessions = sum("standin_sessions").await;
        sessions <= 12.0
    })
    .await;
}
