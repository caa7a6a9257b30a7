// Fills the page of the broker from /varz, /routez, /connz and /accstatz.

import { bytes, clock, counted, duration, short, shortened, whole } from "./format.js";
import { History } from "./history.js";
import { Picture } from "./picture.js";
import { Plot } from "./plot.js";
import { query, read, say, start } from "./poll.js";
import { Pager, figures, fill } from "./table.js";

/** Rows of the table of clients. */
const CLIENTS_SHOWN = 50;
const EVENTS_SHOWN = 30;
/** A node without a link is shown for this time. */
const GONE_MS = 600_000;

const element = (id) => document.getElementById(id);
const number = (text, bad = false) => ({ text, kind: bad ? "n bad" : "n" });

const history = new History(["in_client_msgs", "out_client_msgs", "in_client_bytes", "out_client_bytes"]);
const plot = (id, unit, format) =>
  new Plot(
    id,
    history,
    [
      { name: `in_client_${unit}`, label: "from clients" },
      { name: `out_client_${unit}`, label: "to clients" },
    ],
    format,
  );
const plots = [plot("messages", "msgs", short), plot("bytes", "bytes", bytes)];
const picture = new Picture("picture");

/** What this page has seen happen: `{ at, text }`, newest first. */
let events = [];
/** The last state of each node to which there has been a link, by name. */
const peers = new Map();
let before = null;

function note(at, text) {
  events = [{ at, text }, ...events].slice(0, EVENTS_SHOWN);
}

/** Adds the links to the nodes known, and notes nodes that have lost theirs. */
function follow(now, routes) {
  const linked = new Set();
  for (const route of routes) {
    const name = route.remote_name || route.remote_id;
    linked.add(name);
    const known = peers.get(name);
    const state = route.draining ? "draining" : "up";
    if (before && !known) note(now, `${name} is linked`);
    else if (known && known.state !== state) note(now, state === "up" ? `${name} is linked again` : `${name} is draining`);
    const seconds = known?.rid === route.rid ? (now - known.at) / 1000 : 0;
    const since = (field) => (seconds > 0 ? Math.max(0, route[field] - known[field]) / seconds : 0);
    peers.set(name, { ...route, name, state, at: now, rate: since("in_msgs") + since("out_msgs") });
  }
  for (const [name, peer] of peers) {
    if (linked.has(name)) continue;
    if (peer.state !== "down") note(now, `${name} has lost its link${peer.state === "draining" ? " after draining" : ""}`);
    peer.state = "down";
    peer.rate = 0;
    if (now - peer.at > GONE_MS) peers.delete(name);
  }
}

const stateText = (peer, now) => {
  if (peer.state === "down") return `no link for ${duration((now - peer.at) / 1000)}`;
  return peer.state === "up" ? "linked" : peer.state;
};

function showLinks(varz, now) {
  const all = [...peers.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const most = Math.max(1, ...all.map((peer) => peer.rate));
  const cards = all.map((peer) => ({
    key: peer.name,
    name: peer.name,
    detail: `${peer.ip}:${peer.port}`,
    state: peer.state,
    stateText: stateText(peer, now),
    value: short(peer.rate),
    unit: "messages/s",
    share: peer.rate / most / 2,
  }));
  const lines = [counted(varz.connections, "client"), counted(varz.subscriptions, "subscription")];
  if (varz.lame_duck_mode) lines.unshift("draining (lame duck)");
  picture.show({ name: varz.server_name, lines }, cards);
  const rows = all.map((peer) => [
    { text: peer.name, kind: "name-cell", title: peer.name },
    { text: `${peer.ip}:${peer.port}`, kind: "mono" },
    { text: stateText(peer, now), kind: peer.state },
    peer.did_solicit ? "this node" : "the other node",
    number(shortened(peer.rtt)),
    number(whole(peer.in_msgs)),
    number(whole(peer.out_msgs)),
    number(whole(peer.subscriptions)),
    number(bytes(peer.pending_size)),
  ]);
  fill(element("links"), rows, "This node is linked with no other.");
}

function showFigures(varz) {
  const rate = history.now("in_client_msgs") + history.now("out_client_msgs");
  const linked = [...peers.values()].filter((peer) => peer.state !== "down").length;
  const slow = varz.slow_consumer_stats;
  figures("figures", [
    { name: "Clients", value: whole(varz.connections), more: `of at most ${whole(varz.max_connections)}` },
    {
      name: "Nodes linked",
      value: linked === peers.size ? whole(linked) : `${linked} of ${peers.size}`,
      more: varz.cluster.name ? `cluster ${varz.cluster.name}` : "no cluster",
      bad: linked < peers.size,
    },
    { name: "Messages a second", value: short(rate), more: "from and to clients" },
    { name: "Subscriptions", value: whole(varz.subscriptions), more: "local and remote" },
    {
      name: "Slow consumers",
      value: whole(varz.slow_consumers),
      more: `${counted(slow.clients, "client")}, ${counted(slow.routes, "link")}`,
      bad: varz.slow_consumers > 0,
    },
    { name: "Memory", value: bytes(varz.mem), more: `CPU ${varz.cpu.toFixed(1)} %` },
    { name: "Running for", value: varz.uptime.replace(/[a-z](?=\d)/g, "$& "), more: `version ${varz.version}` },
  ]);
}

function showAccounts(accounts) {
  const rows = accounts.map((account) => [
    { text: account.acc, kind: "name-cell", title: account.acc },
    number(whole(account.conns)),
    number(whole(account.num_subscriptions)),
    number(whole(account.received.msgs)),
    number(whole(account.sent.msgs)),
  ]);
  fill(element("accounts"), rows, "");
  const select = element("account");
  const names = accounts.map((account) => account.acc);
  const known = [...select.options].slice(1).map((option) => option.value);
  if (JSON.stringify(known) === JSON.stringify(names)) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

const pager = new Pager("clients-pager", CLIENTS_SHOWN, showClients);
let asked = 0;

async function showClients() {
  asked += 1;
  const own = asked;
  const state = element("state").value;
  const page = await read(
    query("/connz", {
      auth: 1,
      search: element("search").value.trim(),
      acc: element("account").value,
      state,
      sort: state === "closed" ? "stop" : element("sort").value,
      offset: pager.offset,
      limit: CLIENTS_SHOWN,
    }),
  );
  // The answer to an older question may come later than that to a newer one.
  if (own !== asked) return;
  if (!pager.show(page.total, "clients")) return showClients();
  const rows = page.connections.map((client) => {
    const name = [client.name, client.lang, client.version].filter(Boolean).join(" · ");
    const closed = client.stop && `closed at ${clock(Date.parse(client.stop))}: ${client.reason}`;
    return [
      { text: `${client.ip}:${client.port}`, kind: "mono" },
      { text: name || "–", kind: "name-cell", title: name },
      { text: client.authorized_user || "–", kind: "name-cell" },
      { text: client.account, kind: "name-cell" },
      closed ? { text: closed, kind: /slow/i.test(client.reason) ? "bad" : "" } : `connected for ${client.uptime}`,
      number(shortened(client.rtt ?? "–")),
      number(whole(client.subscriptions)),
      number(whole(client.in_msgs)),
      number(whole(client.out_msgs)),
      number(bytes(client.pending_bytes), client.pending_bytes > 1_000_000),
    ];
  });
  fill(element("clients"), rows, "No client fits.");
}

function search() {
  pager.offset = 0;
  element("sort").disabled = element("state").value === "closed";
  showClients().catch(console.warn);
}

element("filter").addEventListener("submit", (event) => event.preventDefault());
element("search").addEventListener("input", search);
for (const id of ["account", "state", "sort"]) element(id).addEventListener("change", search);

start(async () => {
  const [varz, routez, accstatz] = await Promise.all(["/varz", "/routez", "/accstatz"].map(read));
  const now = Date.parse(varz.now);
  const newest = events[0];
  history.add(now, varz);
  follow(now, routez.routes);
  if (before && before.server_id !== varz.server_id) note(now, "This node has started again");
  else if (before && varz.slow_consumers > before.slow_consumers) {
    note(now, `${counted(varz.slow_consumers - before.slow_consumers, "slow consumer")} closed`);
  }
  if (varz.lame_duck_mode && !before?.lame_duck_mode) note(now, "This node is draining (lame duck)");
  before = varz;
  showLinks(varz, now);
  showFigures(varz);
  showAccounts(accstatz.account_statz);
  const rows = events.map(({ at, text }) => [clock(at), { text, kind: "text" }]);
  fill(element("events"), rows, "Nothing has changed.");
  await showClients();
  const fresh = events.slice(0, newest ? events.indexOf(newest) : events.length);
  if (fresh.length > 0) say("news", fresh.map((event) => event.text).join(". "));
  for (const one of plots) one.draw(events.map((event) => event.at));
});
