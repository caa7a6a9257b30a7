"""Latency of the messages of one account while another account floods the server."""

import time
from contextlib import ExitStack

import peers
from pair import OURS, THEIRS, Case, address, start
from processes import Load, load, until
from report import say, table

RATE = 1_000  # messages per second of the measured account
SECONDS = 3
LIMIT = 100_000  # messages per second of the flooding account, if it has a limit
FLOOD = ["--publishers", 4, "--subscribers", 2, "--own-subjects", "--messages", 10**12, "--user", "flood:secret"]
QUIET, FLOODED, LIMITED = "no flood", "flood", f"flood with a limit of {LIMIT:,} messages/s"


def settings(limit=""):
    users = lambda name: f"users: [ {{ user: {name}, password: secret }} ]"
    return f"accounts {{ measured {{ {users('measured')} }}\n flooding {{ {users('flood')}\n {limit} }} }}\n"


def run(folder, runs, part, targets):
    one = lambda who, text: start(folder, who, text)
    measure_all(one, lambda server: [server], "on one server", runs, part)


def measure_all(start_servers, nodes_of, where, runs, part):
    """Measures with servers that `start_servers` starts. Publishers are on the first of their nodes, subscribers on the last."""
    limits = {QUIET: "", FLOODED: "", LIMITED: f"limits {{ max_msgs_in_per_sec: {LIMIT} }}"}
    cases = [Case(f"{name}") for name in limits]
    for case in cases:
        case.who = (OURS,) if case.name == LIMITED else (OURS, THEIRS)
        for who in case.in_turn(runs):
            with start_servers(who, settings(limits[case.name])) as servers:
                once(case, who, nodes_of(servers), part)
    say(f"### Messages at {RATE:,}/s of one account, while another account floods, {where}, medians of {runs} runs in turn\n")
    say("nats-server has no limits on the rate of an account.\n")
    rows = [row(case, who) for case in cases for who in case.who]
    table(["", "server", "p50 µs", "p99 µs", "p99.9 µs", "flood, 1,000 messages/s"], rows)


def once(case, who, nodes, part):
    first, last = nodes[0], nodes[-1]
    with ExitStack() as running:
        if case.name != QUIET:
            ends = ["--publishers-at", address(first), "--subscribers-at", address(last)]
            running.enter_context(Load(first.log.parent, "throughput", *ends, *FLOOD))
            until("the flood has begun", lambda: messages_in(first) > LIMIT / 2)
        before, started = messages_in(first), time.monotonic()
        ends = ["--publisher", address(first), "--subscriber", address(last)]
        done = load("latency", *ends, "--rate", RATE, "--seconds", SECONDS * part, "--user", "measured:secret")
        flood = (messages_in(first) - before) / (time.monotonic() - started) - RATE
    for what in ("p50_us", "p99_us", "p999_us"):
        case.add(what, who, done[what])
    case.add("flood", who, max(flood, 0) / 1000)


def messages_in(node):
    return peers.get_json(node.http, "/varz")["in_msgs"]


def row(case, who):
    cells = [f"{case.median(what, who):,.0f}" for what in ("p50_us", "p99_us", "p999_us", "flood")]
    return [case.name, who, *cells]
