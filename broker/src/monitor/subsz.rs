//! The page `/subsz`: the subscriptions.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use standin_wire::subject::valid_publish;

use super::connz::SubRow;
use super::query::{BadRequest, Query};
use super::{Pages, json, time};
use crate::account;
use crate::subscription::Subscription;
use crate::subscriptions::Matched;

/// The page. Names and meanings of the fields are those of `nats-server`. Lookups and fanout cover the time since the start.
#[derive(Serialize)]
struct Subsz<'a> {
    server_id: &'a str,
    now: String,
    num_subscriptions: usize,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    cache_hit_rate: f64,
    max_fanout: u64,
    avg_fanout: f64,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list: Option<Vec<SubRow>>,
}

pub(super) async fn page(State(pages): State<Pages>, query: Query) -> Result<Response, BadRequest> {
    let (offset, limit) = query.rows()?;
    // With `test`, only the subscriptions that match this subject are shown.
    let test = query.text("test");
    if !test.is_empty() && !valid_publish(test.as_bytes()) {
        let text = format!("test must be a valid subject without wildcards, not `{test}`");
        return Err(BadRequest(text));
    }
    let shared = &pages.shared;
    let acc = query.text("acc");
    let account = shared.accounts.get(acc);
    let is_of = |one: &Arc<Subscription>| {
        acc.is_empty() || account::name_and_subject(one.subject()).0 == acc.as_bytes()
    };
    let mut scoped = Vec::new();
    let test_scoped = account::scoped(account::scope(account.as_ref()), test.as_bytes(), &mut scoped);
    let interest = &shared.interest;
    let (here, elsewhere) = (interest.local.counts(), interest.remote.counts());
    let live = here.live + elsewhere.live;
    let (total, list) = match test {
        _ if !query.boolean("subs")? => (0, None),
        "" if !acc.is_empty() => {
            let mut all = Vec::new();
            for subscriptions in [&interest.local, &interest.remote] {
                all.extend(subscriptions.page(0, usize::MAX));
            }
            all.retain(is_of);
            let page = all.iter().skip(offset).take(limit);
            (all.len(), Some(page.map(SubRow::of).collect()))
        }
        "" => {
            let mut page = interest.local.page(offset, limit);
            let skipped = offset.saturating_sub(here.live);
            page.extend(interest.remote.page(skipped, limit - page.len()));
            (live, Some(page.iter().map(SubRow::of).collect()))
        }
        _ => {
            let mut matched = Matched::default();
            for subscriptions in [&interest.local, &interest.remote] {
                subscriptions.collect(test_scoped, &mut matched);
            }
            let all = matched.each.iter().chain(matched.groups.iter().flatten());
            let page = all.clone().skip(offset).take(limit);
            (all.count(), Some(page.map(SubRow::of).collect()))
        }
    };
    let matches = shared.lookups.total.load(Relaxed);
    let hits = shared.lookups.hits.load(Relaxed);
    let (clients, routes) = (shared.clients.totals(), shared.interest.routes.totals());
    let ratio = |part: u64, whole: u64| match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    };
    Ok(json(&Subsz {
        server_id: &shared.server_id,
        now: time(SystemTime::now()),
        num_subscriptions: live,
        num_cache: shared.lookups.cached.load(Relaxed),
        num_inserts: here.added + elsewhere.added,
        num_removes: here.removed + elsewhere.removed,
        num_matches: matches,
        cache_hit_rate: ratio(hits, matches),
        max_fanout: shared.lookups.fanout_max.load(Relaxed),
        avg_fanout: ratio(
            clients.messages_out + routes.messages_out,
            clients.messages_in + routes.messages_in,
        ),
        total,
        offset,
        limit,
        subscriptions_list: list,
    }))
}
