// Fills the page of the sidecar from /varz, /nodez, /sessionz and /movez.

import { bytes, clock, counted, duration, milliseconds, short, whole, words } from "./format.js";
import { History } from "./history.js";
import { Picture } from "./picture.js";
import { Plot } from "./plot.js";
import { query, read, say, start } from "./poll.js";
import { Pager, fill, figures } from "./table.js";

/** Rows of the table of sessions. */
const SESSIONS_SHOWN = 50;
/** Rows that one request of /nodez or /movez asks for. */
const ROWS_ASKED = 1000;
/** Moves with the same cause from the same node that follow within this time are one event. */
const EVENT_MS = 2000;
/** Events at the same time that are kept apart, such as the deaths of several nodes. */
const SIMULTANEOUS_MAX = 10;
const EVENTS_KEPT = 200;
const EVENTS_SHOWN = 30;

const element = (id) => document.getElementById(id);
const number = (text, bad = false) => ({ text, kind: bad ? "n bad" : "n" });

const history = new History(["messages_to_node", "messages_to_component", "bytes_to_node", "bytes_to_component"]);
const plot = (id, unit, format) =>
  new Plot(
    id,
    history,
    [
      { name: `${unit}_to_node`, label: "to nodes" },
      { name: `${unit}_to_component`, label: "to components" },
    ],
    format,
  );
const plots = [plot("messages", "messages", short), plot("bytes", "bytes", bytes)];
const picture = new Picture("picture");

// Moves, gathered to events, newest first.
let events = [];
let newestMove = 0;
let uptime = 0;

/** Reads the moves that are newer than those known, and gathers them. Returns the new events. */
async function readMoves(varz) {
  if (varz.uptime_ms < uptime) newestMove = 0;
  uptime = varz.uptime_ms;
  const fresh = [];
  while (varz.moves > newestMove) {
    const { items } = await read(query("/movez", { offset: fresh.length, limit: ROWS_ASKED }));
    const unknown = items.filter((move) => move.number > newestMove);
    fresh.push(...unknown);
    if (unknown.length === 0 || unknown.length < items.length || unknown.at(-1).number === newestMove + 1) break;
  }
  newestMove = fresh[0]?.number ?? newestMove;
  const before = events.length;
  for (const move of fresh.reverse()) gather(move);
  const added = events.slice(0, events.length - before);
  events = events.slice(0, EVENTS_KEPT);
  return added;
}

function gather(move) {
  const isSame = (one) => one.from === move.from && one.cause === move.cause && move.at_ms <= one.last + EVENT_MS;
  let event = events.slice(0, SIMULTANEOUS_MAX).find(isSame);
  if (!event) {
    event = { at: move.at_ms, from: move.from, cause: move.cause, moves: 0, to: new Map(), names: new Set() };
    Object.assign(event, { silent: 0, dropped: 0, resent: 0, abandoned: 0 });
    events.unshift(event);
  }
  event.last = move.at_ms;
  event.moves += 1;
  event.to.set(move.to, (event.to.get(move.to) ?? 0) + 1);
  if (event.names.size < 4) event.names.add(move.client_name || move.component);
  event.silent = Math.max(event.silent, move.silent_ms);
  event.dropped += move.in_doubt_dropped;
  event.resent += move.in_doubt_resent;
  event.abandoned += move.abandoned;
}

/** Returns the text of an event: how many sessions, which, from where, to where. */
function describe(event) {
  const names = [...event.names].slice(0, 3).join(", ");
  const others = event.moves > 3 && event.names.size > 3 ? ", …" : "";
  const sessions = `${counted(event.moves, "session")} (${names}${others})`;
  if (event.from === null) return `${sessions} ended without a node`;
  const targets = [...event.to].sort(([, a], [, b]) => b - a);
  const shown = targets.slice(0, 4).map(([to, count]) => (targets.length === 1 ? to : `${to} (${whole(count)})`));
  const more = targets.length > 4 ? ` and ${whole(targets.length - 4)} more` : "";
  return `${sessions} from ${event.from} to ${shown.join(", ")}${more}`;
}

function showMoves() {
  const rows = events.slice(0, EVENTS_SHOWN).map((event) => [
    clock(event.at),
    { text: describe(event), kind: "text" },
    words(event.cause),
    number(event.from === null ? "–" : milliseconds(event.silent)),
    number(whole(event.dropped), event.dropped > 0),
    number(whole(event.resent)),
    number(whole(event.abandoned), event.abandoned > 0),
  ]);
  fill(element("moves"), rows, "No session has moved.");
}

/** Returns the state of a node in words. */
function stateText(node) {
  if (node.state === "cooling") return `cooling down, ${milliseconds(node.cooling_ms)}`;
  if (node.state === "unproved") return "not proved lately";
  return node.withdrawn ? `${node.state}, no longer registered` : node.state;
}

function showNodes(varz, nodes) {
  const all = Math.max(1, varz.sessions);
  const lines = [counted(varz.sessions, "session"), `version ${varz.version}`];
  if (varz.sessions_without_node > 0) lines.splice(1, 0, `${whole(varz.sessions_without_node)} without a node`);
  const cards = nodes.map((node) => ({
    key: node.client,
    name: node.id,
    detail: node.client,
    state: node.state,
    stateText: stateText(node),
    value: whole(node.sessions),
    unit: node.sessions === 1 ? "session" : "sessions",
    share: node.sessions / all,
  }));
  const changed = picture.show({ name: "Sidecar", lines }, cards);
  const rows = nodes.map((node) => [
    { text: node.id, kind: "name-cell", title: node.id },
    { text: node.client, kind: "mono" },
    { text: stateText(node), kind: node.state },
    number(whole(node.sessions)),
    node.source,
    node.zone || "–",
    number(whole(node.failures)),
    { text: node.last_error ? `${node.last_error}, ${duration(node.last_error_secs ?? 0)} ago` : "–", kind: "text" },
  ]);
  fill(element("nodes"), rows, "No node is known from any source.");
  showChoices(nodes);
  return changed.map((node) => `${node.name} is ${node.stateText}`);
}

/** Offers the nodes for the choice of sessions. */
function showChoices(nodes) {
  const select = element("node");
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.join(" ") === nodes.map((node) => node.client).join(" ")) return;
  const chosen = select.value;
  const options = nodes.map((node) => new Option(node.id, node.client));
  select.replaceChildren(select.options[0], ...options);
  select.value = nodes.some((node) => node.client === chosen) ? chosen : "";
}

function showFigures(varz, nodes) {
  const up = nodes.filter((node) => node.state === "up").length;
  const rate = history.now("messages_to_node") + history.now("messages_to_component");
  const lost = varz.lost_in_doubt + varz.lost_abandoned;
  const sources = [
    ["ZooKeeper", varz.zookeeper],
    ["DNS", varz.dns],
  ].filter(([, state]) => state !== "off");
  figures("figures", [
    {
      name: "Sessions",
      value: whole(varz.sessions),
      more: varz.sessions_without_node > 0 ? `${whole(varz.sessions_without_node)} without a node` : "all with a node",
      bad: varz.sessions_without_node > 0,
    },
    {
      name: "Nodes up",
      value: `${up} of ${nodes.length}`,
      more: sources.map(([name, state]) => `${name} ${state}`).join(", ") || "fixed list",
      bad: up === 0,
    },
    { name: "Messages a second", value: short(rate), more: "both directions" },
    { name: "Moves", value: whole(varz.moves), more: events[0] ? `last at ${clock(events[0].at)}` : "none yet" },
    {
      name: "Messages lost",
      value: whole(lost),
      more: `${whole(varz.lost_in_doubt)} in doubt, ${whole(varz.lost_abandoned)} held`,
      bad: lost > 0,
    },
    { name: "Buffered", value: bytes(varz.buffered_bytes), more: varz.ready ? "ready" : varz.reasons.join(", "), bad: !varz.ready },
    { name: "Running for", value: duration(varz.uptime_ms / 1000), more: `version ${varz.version}` },
  ]);
}

const pager = new Pager("sessions-pager", SESSIONS_SHOWN, showSessions);
let asked = 0;

async function showSessions() {
  asked += 1;
  const own = asked;
  const parameters = { search: element("search").value.trim(), node: element("node").value };
  const page = await read(query("/sessionz", { ...parameters, offset: pager.offset, limit: SESSIONS_SHOWN }));
  // The answer to an older question may come later than that to a newer one.
  if (own !== asked) return;
  if (!pager.show(page.total, "sessions")) return showSessions();
  const names = new Map([...element("node").options].map((option) => [option.value, option.text]));
  const rows = page.items.map((session) => {
    const client = [session.client_name, session.client_lang, session.client_version].filter(Boolean).join(" · ");
    return [
      { text: session.component, kind: "mono" },
      { text: client || "–", kind: "name-cell", title: client },
      { text: names.get(session.node) ?? session.node ?? "none", kind: session.node ? "name-cell" : "bad" },
      words(session.state),
      number(duration(session.connected_secs)),
      number(whole(session.subscriptions)),
      number(whole(session.messages_to_node)),
      number(whole(session.messages_to_component)),
      number(bytes(session.buffered_bytes)),
      number(whole(session.in_doubt)),
      number(whole(session.failovers)),
    ];
  });
  fill(element("sessions"), rows, "No session fits.");
}

function search() {
  pager.offset = 0;
  showSessions().catch(console.warn);
}

element("filter").addEventListener("submit", (event) => event.preventDefault());
element("search").addEventListener("input", search);
element("node").addEventListener("change", search);

start(async () => {
  const [varz, nodes] = await Promise.all([read("/varz"), read(query("/nodez", { limit: ROWS_ASKED }))]);
  history.add(varz.now_ms, varz);
  const added = await readMoves(varz);
  showMoves();
  showFigures(varz, nodes.items);
  const news = showNodes(varz, nodes.items);
  await showSessions();
  const moved = added.slice(0, 3).map((event) => `${describe(event)}: ${words(event.cause)}`);
  // The first reading shows what has happened already, which is not news.
  if (history.samples.length > 0) news.push(...moved);
  if (news.length > 0) say("news", news.join(". "));
  const marks = events.map((event) => event.at);
  for (const one of plots) one.draw(marks);
});
