//! The page `/routez`: the routes to other nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::connz::{Subs, SubsList};
use super::query::{BadRequest, Query};
use super::{Pages, ROWS_MAX, duration, json, time};
use crate::route::Route;
use crate::subscription::Subscription;

/// The page. Names and meanings of the fields are those of `nats-server`.
#[derive(Serialize)]
struct Routez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    now: String,
    num_routes: usize,
    routes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    rid: u64,
    remote_id: String,
    remote_name: String,
    did_solicit: bool,
    is_configured: bool,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    rtt: String,
    uptime: String,
    idle: String,
    pending_size: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    compression: &'static str,
    #[serde(flatten)]
    list: SubsList,
    /// All bytes received over the route, interest included. Not in `nats-server`.
    raw_in_bytes: u64,
    /// Whether the peer is draining and accepts no clients. Not in `nats-server`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
}

pub(super) async fn page(State(pages): State<Pages>, query: Query) -> Result<Response, BadRequest> {
    let subs = Subs::parse(&query)?;
    let shared = &pages.shared;
    let settings = shared.settings.load();
    let routes = shared.interest.routes.load_full();
    let wanted = match subs {
        Subs::No => Vec::new(),
        _ => shared.interest.remote.page(0, ROWS_MAX),
    };
    let configured = settings.routes();
    let named: Vec<String> = configured
        .iter()
        .map(|route| route.endpoint.to_string())
        .collect();
    let routes: Vec<Row> = routes
        .iter()
        .map(|route| row(route, &named, &wanted, subs))
        .collect();
    Ok(json(&Routez {
        server_id: &shared.server_id,
        server_name: shared.server_name(&settings),
        now: time(SystemTime::now()),
        num_routes: routes.len(),
        routes,
    }))
}

/// Makes the row of a route. `configured` are the addresses in the settings, `wanted` the subscriptions of all peers.
fn row(route: &Route, configured: &[String], wanted: &[Arc<Subscription>], subs: Subs) -> Row {
    let of_route = wanted
        .iter()
        .filter(|one| Arc::ptr_eq(&one.client, &route.outbox));
    // A route may be configured by a host name, which only the side that dialled knows.
    let mut names = route.dialled.iter().chain([&route.peer.mesh]);
    Row {
        rid: route.number,
        remote_id: route.peer.run.clone(),
        remote_name: route.peer.id.clone(),
        did_solicit: route.dialled.is_some(),
        is_configured: names.any(|name| configured.contains(name)),
        ip: route.address.ip().to_string(),
        port: route.address.port(),
        start: time(route.stats.started_at),
        last_activity: time(SystemTime::now() - route.stats.idle()),
        rtt: format!("{:?}", route.stats.rtt().unwrap_or_default()),
        uptime: duration(route.stats.started.elapsed()),
        idle: duration(route.stats.idle()),
        pending_size: route.outbox.pending_bytes(),
        in_msgs: route.stats.messages_in.load(Relaxed),
        out_msgs: route.outbox.messages_out.load(Relaxed),
        in_bytes: route.stats.bytes_in.load(Relaxed),
        out_bytes: route.outbox.bytes_out.load(Relaxed),
        subscriptions: route.interest.load(Relaxed),
        compression: "off",
        list: subs.list(route.number, of_route),
        raw_in_bytes: route.raw_bytes_in.load(Relaxed),
        draining: route.draining.load(Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;
    use crate::route::hello::Hello;

    #[test]
    fn is_configured_is_true_if_the_settings_have_the_peers_address_or_the_dialled_name() {
        let configured = ["n1:6222", "10.0.0.2:6222"].map(str::to_owned);
        for (dialled, mesh, is_configured) in [
            (Some("n1:6222"), "10.0.0.1:6222", true),
            (None, "10.0.0.2:6222", true),
            (None, "10.0.0.1:6222", false),
            (Some("10.0.0.3:6222"), "10.0.0.3:6222", false),
        ] {
            let hello = Hello {
                mesh: mesh.to_owned(),
                ..Hello::default()
            };
            let outbox = Arc::new(Outbox::unconnected(1));
            let dialled = dialled.map(str::to_owned);
            let route = Route::new(1, outbox, hello, ([10, 0, 0, 1], 6222).into(), dialled);
            let row = row(&route, &configured, &[], Subs::No);
            assert_eq!(row.is_configured, is_configured, "{mesh}");
        }
    }
}
