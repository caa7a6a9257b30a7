"""The broker: one node, and one of the newest nats-server, each case on both in turn."""

import os
import platform
import sys
import tempfile
from pathlib import Path

import fairness
import idle
import latency
import plot
import subscriptions
import throughput
from processes import build, nats_server
from report import Targets, progress, say

PARTS = {
    "throughput": throughput,
    "latency": latency,
    "fairness": fairness,
    "idle": idle,
    "subscriptions": subscriptions,
}


def run(parts, quick, fresh, plot_file):
    if not nats_server().exists():
        print(f"tests/bench: missing: {nats_server()}; tests/run installs it", file=sys.stderr)
        return 69
    if fresh:
        progress("building")
        build("standin-broker")
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}"
    say(f"{machine}, load {os.getloadavg()[0]:.1f} at the start.\n")
    if quick:
        say("A quick look: too few runs to be quoted.\n")
    targets = Targets()
    cases = []
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder:
        for part in parts:
            cases += PARTS[part].run(Path(folder), 2 if quick else 5, 0.25 if quick else 1.0, targets)
    say("All targets reached." if not targets.missed else f"Targets not reached: {targets.missed}.")
    if plot_file:
        how = "A quick look" if quick else "Medians of runs in turn"
        plot.write(plot_file, cases, f"{how}, on one machine: {machine}.")
    return 0
