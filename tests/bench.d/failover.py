"""Longest silence of busy components when their node is killed or freezes."""

import random
import signal
import time
from contextlib import ExitStack

import peers
from processes import Crowd
from report import progress, quantile, say, table

COMPONENTS = 100
RATE = 200  # messages per second of each component, so a silence is measured in steps of 5 ms
SHORT_SECONDS = 0.2
NO_SIGNAL = 0
PROBE_MS = 1000 + 1000  # default probe interval and timeout


def run(folder, runs, part, targets):
    kills, freezes = int(100 * part), runs
    with ExitStack() as running:
        nodes = peers.cluster(folder, 3, running)
        sidecar = running.enter_context(peers.sidecar(folder, [node.port for node in nodes]))
        words = ["silence", "--server", f"127.0.0.1:{sidecar.port}", "--components", COMPONENTS, "--rate", RATE]
        crowd = running.enter_context(Crowd(folder, *words))
        quiet, killed, others, lost = [], [], [], 0
        for _ in range(kills):
            quiet += sum(around(nodes, sidecar, crowd, NO_SIGNAL, SHORT_SECONDS)[:2], [])
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
    rows = [silence("alive: 5 ms between messages + machine delays", quiet)]
    rows.append(silence(f"killed (-9), {kills} times: its components", killed))
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


def around(nodes, sidecar, crowd, signal_number, seconds):
    """Sends one signal to one node. Returns the silences of its components and of the others in ms, and the number of lost connections.

    Each silence is the longest within SHORT_SECONDS, so that later delays of the machine are left out. If that is more than half of
    SHORT_SECONDS, it is the longest within `seconds`."""
    node, components = busiest(nodes, sidecar)
    crowd.tell("mark")
    time.sleep(random.uniform(0.002, 0.012))
    node.signal(signal_number)
    time.sleep(SHORT_SECONDS)
    short = crowd.ask("report")["components"]
    time.sleep(seconds - SHORT_SECONDS)
    final = crowd.ask("report")["components"]
    if signal_number:
        node.kill()
        node.start()
        peers.joined(nodes)
    hit, spared = [], []
    for early, late in zip(short, final):
        ended = early["silence_ms"] < SHORT_SECONDS * 500
        silences = hit if early["address"] in components else spared
        silences.append((early if ended else late)["silence_ms"])
    return hit, spared, sum(one["lost"] for one in final)


def busiest(nodes, sidecar):
    """Returns the node with most sessions, and the addresses of their components."""
    by_port = {}
    for row in peers.get_json(sidecar.http, "/sessionz")["items"]:
        if row["node"]:
            by_port.setdefault(int(row["node"].rsplit(":", 1)[1]), set()).add(row["component"])
    port, components = max(by_port.items(), key=lambda entry: len(entry[1]))
    return next(node for node in nodes if node.port == port), components
