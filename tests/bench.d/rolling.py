"""Rolling restarts of three brokers under load, with sidecars in front: lost, repeated and disordered messages, and the longest silence."""

import signal
import time
from contextlib import ExitStack

import peers
from cluster import SIZE
from processes import TARGET, Crowd, Process, free_port, standin_broker
from report import progress, quantile, say, table

SIDECARS = 3
COMPONENTS = 50
ROUNDS = 2
# milliseconds of delay of the routes to two of the nodes
DELAYS = [0, 1, 20, 100]
RATES = [2_000, 20_000]
# Time after the end of a node in which a silence would show.
AFTER_SECONDS = 0.3
COUNTS = ("lost", "twice", "disordered", "group_lost", "group_twice", "group_disordered", "failed_requests", "disconnects")


HEADS = ["rate", "delay", "published", "lost", "twice", "disordered", "requests failed", "disconnects", "a node's end, s (max)",
         "silence ms, p50", "p99", "max", "group: least / most"]


def run(folder, runs, part, targets):
    delays = DELAYS if part == 1 else [0, 20]
    rows, faults = [], 0
    for rate in RATES:
        for delay in delays:
            progress(f"rolling restart at {rate}/s, routes of {delay} ms")
            with ExitStack() as running:
                nodes = cluster(folder, delay, running)
                crowd = behind_sidecars(folder, nodes, rate, running)
                result, row = restarted(nodes, crowd, signal.SIGTERM, ROUNDS)
            faults += sum(result[count] for count in COUNTS)
            rows.append([f"{rate:,}/s", f"{delay} ms", *row])
    say(f"### Every node is stopped by SIGTERM and started again, {ROUNDS} times, behind {SIDECARS} sidecars\n")
    say(f"{COMPONENTS} components: publishers, subscribers to everything with two overlapping subscriptions each, a queue group, requesters and")
    say("responders. The delay is that of the routes to two of the three nodes. The silence is the longest of each subscriber while one node ends.\n")
    table(HEADS, rows)
    targets.check("lost, repeated or disordered messages, failed requests, lost connections", faults, 0, "")
    say()


def behind_sidecars(folder, nodes, rate, running):
    """Starts the sidecars and the load behind them."""
    upstreams = [node.port for node in nodes]
    sidecars = [running.enter_context(peers.sidecar(folder, upstreams, name=f"sidecar-{number}")) for number in range(SIDECARS)]
    servers = ",".join(f"127.0.0.1:{sidecar.port}" for sidecar in sidecars)
    return running.enter_context(Crowd(folder, "moves", "--servers", servers, "--rate", rate))


def restarted(nodes, crowd, how, rounds):
    """Ends each node with the signal `how` and starts it again. Returns the result of the load, and the row for it."""
    silences, ends = [], []
    time.sleep(1)
    for _ in range(rounds):
        for node in nodes:
            crowd.tell("mark")
            began = time.monotonic()
            node.signal(how)
            node.popen.wait(timeout=60)
            ends.append(time.monotonic() - began)
            time.sleep(AFTER_SECONDS)
            silences += crowd.ask("report")["silences_ms"]
            node.start()
            peers.joined(nodes)
            time.sleep(1)
    result = crowd.ask("stop")
    silence = [f"{quantile(silences, of):.1f}" for of in (0.5, 0.99)] + [f"{max(silences):.1f}"]
    group = result["group_shares"]
    return result, [
        f"{result['published']:,}",
        *(result[count] + result.get(f"group_{count}", 0) for count in ("lost", "twice", "disordered")),
        f"{result['failed_requests']} of {result['requests']}", result["disconnects"],
        f"{max(ends):.2f}", *silence, f"{min(group) / max(group):.2f}",
    ]


def cluster(folder, delay, running):
    """Starts three brokers. The other nodes reach the first two through relays, if there is a `delay`."""
    ports = [free_port() for _ in range(SIZE)]
    reached_at = [free_port() if delay and number < SIZE - 1 else port for number, port in enumerate(ports)]
    nodes = []
    for number, (port, reached) in enumerate(zip(ports, reached_at)):
        settings = ""
        if reached != port:
            words = [f"127.0.0.1:{reached}", f"127.0.0.1:{port}", delay]
            running.enter_context(Process(folder, f"relay-{number}", TARGET / "release/relay", *words))
            settings = f'cluster {{ advertise: "127.0.0.1:{reached}" }}\n'
        others = [other for other in reached_at if other != reached]
        node = peers.Node(folder, f"broker-{number}", port, others, program=standin_broker(), settings=settings, wait=False)
        nodes.append(running.enter_context(node))
    for node in nodes:
        node.listening()
    peers.joined(nodes)
    return nodes
