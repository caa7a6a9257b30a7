"""Time from the start of the sidecar until it listens, with its sources of nodes up or down."""

import time
from contextlib import ExitStack
from statistics import median

import peers
from processes import accepts, free_port
from report import progress, say, table

POLL_SECONDS = 0.0005


def run(folder, runs, part, targets):
    starts = 3 * runs
    progress("start")
    with ExitStack() as running:
        zookeeper = peers.zookeeper(folder)
        cases = {}
        if zookeeper:
            running.enter_context(zookeeper)
            cases["ZooKeeper up"] = ["--zookeeper", f"127.0.0.1:{zookeeper.port}"]
        cases["ZooKeeper down"] = ["--zookeeper", f"127.0.0.1:{free_port()}"]
        cases["no source reachable"] = [*cases["ZooKeeper down"], "--upstream", f"127.0.0.1:{free_port()}"]
        taken = {case: [once(folder, options) for _ in range(starts)] for case, options in cases.items()}
    say(f"### From start to listening, {starts} starts each, ms\n")
    table(["", "median", "max"], [[case, f"{median(ms):.1f}", f"{max(ms):.1f}"] for case, ms in taken.items()])
    for case, ms in taken.items():
        targets.check(f"listening after, {case} (max)", max(ms), 50, "ms")
    say()


def once(folder, options):
    before = time.monotonic()
    with peers.sidecar(folder, [], *options, wait=False) as sidecar:
        while not accepts(sidecar.listen):
            if sidecar.popen.poll() is not None:
                raise RuntimeError(f"the sidecar ended during its start:\n{sidecar.tail()}")
            time.sleep(POLL_SECONDS)
        return (time.monotonic() - before) * 1000
