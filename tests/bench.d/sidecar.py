"""The sidecar: its cost between a component and a node, and the effect of a node's death on the component."""

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import crowd
import failover
import passing
import start
from processes import build, nats_server
from report import Targets, progress, say

PARTS = {"passing": passing, "failover": failover, "crowd": crowd, "start": start}


def run(parts, quick, fresh):
    missing = [name for name in ("haproxy", "cargo") if not shutil.which(name)]
    if not nats_server().exists():
        missing.append(str(nats_server()))
    if missing:
        print(f"tests/bench: missing: {', '.join(missing)}; tests/run installs the peers", file=sys.stderr)
        return 69
    if fresh:
        progress("building")
        build()
    say(f"{os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start.\n")
    if quick:
        say("A quick look: too few runs to be quoted.\n")
    targets = Targets()
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder:
        for part in parts:
            PARTS[part].run(Path(folder), quick, targets)
    say("All targets reached." if not targets.missed else f"Targets not reached: {targets.missed}.")
    return 0
