"""How long busy components hear nothing when their node is killed, or freezes."""

import random
import signal
import time
from contextlib import ExitStack

import peers
from processes import Crowd
from report import progress, quantile, say, table

COMPONENTS = 100
RATE = 200  # messages per second of each component: one every 5 ms is what can be seen at all
PROBE_MS = 1000 + 1000  # probe interval and timeout, as set by default


def run(folder, quick, targets):
    kills, freezes = (10, 1) if quick else (100, 5)
    with ExitStack() as running:
        nodes = peers.cluster(folder, 3, running)
        sidecar = running.enter_context(peers.sidecar(folder, [node.port for node in nodes]))
        words = ["silence", "--server", f"127.0.0.1:{sidecar.port}", "--components", COMPONENTS, "--rate", RATE]
        crowd = running.enter_context(Crowd(folder, *words))
        killed, others, lost = [], [], 0
        for number in range(kills):
            if number % 10 == 0:
                progress(f"failover: kill {number + 1} of {kills}")
            hit, spared, lost = around(nodes, sidecar, crowd, signal.SIGKILL, 0.6)
            killed += hit
            others += spared
        frozen = []
        for number in range(freezes):
            progress(f"failover: freeze {number + 1} of {freezes}")
            hit, _, lost = around(nodes, sidecar, crowd, signal.SIGSTOP, PROBE_MS / 1000 + 0.5)
            frozen += hit
    say(f"### Silence of {COMPONENTS} busy components, {RATE} messages/s each, ms\n")
    rows = [silence(f"killed (-9), {kills} times: its components", killed)]
    rows.append(silence("the other components meanwhile", others))
    rows.append(silence(f"frozen (SIGSTOP), {freezes} times: its components", frozen))
    table(["node", "samples", "p50", "p99", "max"], rows)
    targets.check("silence after a kill, p50", quantile(killed, 0.5), 20, "ms")
    targets.check("silence after a kill, p99", quantile(killed, 0.99), 100, "ms")
    targets.check("silence with a frozen node, max", max(frozen), PROBE_MS + 50, "ms")
    targets.check("components that lost their connection", lost, 0, "")
    say()


def silence(name, values):
    figures = [f"{quantile(values, part):.1f}" for part in (0.5, 0.99)] if values else ["–", "–"]
    return [name, len(values), *figures, f"{max(values):.1f}" if values else "–"]


def around(nodes, sidecar, crowd, what, seconds):
    """Silences in ms around one signal to one node: of its components, and of the others."""
    node, components = busiest(nodes, sidecar)
    crowd.tell("mark")
    time.sleep(random.uniform(0.05, 0.06))
    node.signal(what)
    time.sleep(seconds)
    report = crowd.ask("report")["components"]
    node.kill()
    node.start()
    peers.joined(nodes)
    hit = [one["silence_ms"] for one in report if one["address"] in components]
    spared = [one["silence_ms"] for one in report if one["address"] not in components]
    return hit, spared, sum(one["lost"] for one in report)


def busiest(nodes, sidecar):
    """The node with most sessions, and the addresses of their components."""
    by_port = {}
    for row in peers.get_json(sidecar.http, "/sessionz")["items"]:
        if row["node"]:
            by_port.setdefault(int(row["node"].rsplit(":", 1)[1]), set()).add(row["component"])
    port, components = max(by_port.items(), key=lambda entry: len(entry[1]))
    return next(node for node in nodes if node.port == port), components
