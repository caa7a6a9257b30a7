//! The pages `/accountz` and `/accstatz`: the accounts of this node, and what they send and receive.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::query::{BadRequest, Query};
use super::unsupported::page;
use super::{Pages, time};
use crate::account::{Account, DEFAULT};
use crate::close_reason::CloseReason;
use crate::shared::Shared;

/// Numbers of one account: its clients, and the messages and bytes that they sent and received.
struct Numbers {
    clients: u64,
    /// Messages in, bytes in, messages out, bytes out.
    counts: [u64; 4],
}

impl Numbers {
    fn of(account: &Account) -> Self {
        Self {
            clients: account.connections.load(Relaxed),
            counts: account.totals(),
        }
    }

    /// Returns the numbers of the default account: those of the node without the other accounts.
    fn of_default(shared: &Shared) -> Self {
        let totals = shared.clients.totals();
        let mut numbers = Self {
            clients: shared.clients.len() as u64,
            counts: [
                totals.messages_in,
                totals.bytes_in,
                totals.messages_out,
                totals.bytes_out,
            ],
        };
        for other in shared.accounts.all().iter().map(|account| Self::of(account)) {
            numbers.clients = numbers.clients.saturating_sub(other.clients);
            for (own, other) in numbers.counts.iter_mut().zip(other.counts) {
                *own = own.saturating_sub(other);
            }
        }
        numbers
    }
}

pub(super) async fn list(State(pages): State<Pages>, query: Query) -> Result<Response, BadRequest> {
    let shared = &pages.shared;
    let accounts = shared.accounts.all();
    let wanted = query.text("acc");
    if wanted.is_empty() {
        let others = accounts.iter().map(|account| account.name.as_str());
        let names: Vec<&str> = std::iter::once(DEFAULT).chain(others).collect();
        return Ok(page(&pages, json!({ "accounts": names })));
    }
    let account = accounts.iter().find(|account| account.name == wanted);
    let clients = match account {
        Some(account) => account.connections.load(Relaxed),
        None if wanted == DEFAULT => Numbers::of_default(shared).clients,
        None => return Err(BadRequest(format!("Account {wanted} does not exist"))),
    };
    let mut detail = json!({
        "account_name": wanted,
        "update_time": time(shared.started_at),
        "expired": false,
        "complete": true,
        "jetstream_enabled": false,
        "leafnode_connections": 0,
        "client_connections": clients,
        "subscriptions": subscriptions(shared, wanted),
    });
    if let (Some(account), Some(detail)) = (account, detail.as_object_mut()) {
        detail.insert("limits".to_owned(), limits(account));
    }
    Ok(page(&pages, json!({ "account_detail": detail })))
}

fn limits(account: &Account) -> Value {
    let limits = account.limits();
    json!({
        "max_connections": limits.connections_max,
        "max_subscriptions": limits.subscriptions_max,
        "max_payload": limits.payload_bytes_max,
        "max_msgs_in_per_sec": limits.per_second[0],
        "max_bytes_in_per_sec": limits.per_second[1],
        "max_msgs_out_per_sec": limits.per_second[2],
        "max_bytes_out_per_sec": limits.per_second[3],
        "refused_msgs": account.refused.load(Relaxed),
    })
}

/// Returns the number of subscriptions of the clients of an account.
fn subscriptions(shared: &Shared, account: &str) -> usize {
    let clients = shared.clients.open();
    let of_account = clients.iter().filter(|client| client.account_name() == account);
    of_account.map(|client| client.live_subscriptions()).sum()
}

pub(super) async fn stats(State(pages): State<Pages>) -> Response {
    let shared = &pages.shared;
    let accounts = shared.accounts.all();
    let mut rows = vec![row(shared, DEFAULT, &Numbers::of_default(shared))];
    let others = accounts.iter().map(Arc::as_ref);
    rows.extend(others.map(|account| row(shared, &account.name, &Numbers::of(account))));
    page(&pages, json!({ "account_statz": rows }))
}

/// Returns the row of one account. Messages over routes and slow consumers are counted for the whole node, in the row of the default
/// account.
fn row(shared: &Shared, name: &str, numbers: &Numbers) -> Value {
    let is_default = name == DEFAULT;
    let routes = shared.interest.routes.totals();
    let routes = if is_default { routes } else { Default::default() };
    let ended = shared.clients.totals().ended;
    let slow = [
        CloseReason::SlowConsumerPending,
        CloseReason::SlowConsumerDeadline,
    ];
    let slow: u64 = slow.iter().map(|reason| ended[reason.kind()]).sum();
    let counts = |messages: u64, bytes: u64, over_routes: (u64, u64)| {
        let none = json!({ "msgs": 0, "bytes": 0 });
        json!({
            "msgs": messages + over_routes.0,
            "bytes": bytes + over_routes.1,
            "gateways": none,
            "routes": { "msgs": over_routes.0, "bytes": over_routes.1 },
            "leafs": none,
        })
    };
    let [messages_in, bytes_in, messages_out, bytes_out] = numbers.counts;
    json!({
        "acc": name,
        "name": name,
        "conns": numbers.clients,
        "leafnodes": 0,
        "total_conns": numbers.clients,
        "num_subscriptions": subscriptions(shared, name),
        "sent": counts(messages_out, bytes_out, (routes.messages_out, routes.bytes_out)),
        "received": counts(messages_in, bytes_in, (routes.messages_in, routes.bytes_in)),
        "slow_consumers": if is_default { slow } else { 0 },
    })
}
