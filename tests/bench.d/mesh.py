"""The cluster: three nodes of the broker and three of the newest nats-server, each case on both in turn."""

import os
import platform
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import crossing
import death
import flush
import memory
import newcomer
import remote
from processes import build, nats_server
from report import Targets, progress, say

PARTS = {
    "crossing": crossing,
    "remote": remote,
    "newcomer": newcomer,
    "death": death,
    "flush": flush,
    "memory": memory,
}


def run(parts, quick, fresh):
    missing = [str(program) for program in (nats_server(), Path(shutil.which("ss") or "ss")) if not program.exists()]
    if missing:
        print(f"tests/bench: missing: {', '.join(missing)}; tests/run installs the peers", file=sys.stderr)
        return 69
    if fresh:
        progress("building")
        build("standin-broker")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    say(f"{os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start.\n")
    if quick:
        say("A quick look: too few runs to be quoted.\n")
    targets = Targets()
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder:
        for part in parts:
            PARTS[part].run(Path(folder), 2 if quick else 5, 0.25 if quick else 1.0, targets)
    say("All targets reached." if not targets.missed else f"Targets not reached: {targets.missed}.")
    return 0
