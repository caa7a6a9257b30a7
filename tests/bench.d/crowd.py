"""Thousands of idle components: memory of each, and the time until all are on another node after theirs was killed."""

import resource
import signal
import time
from contextlib import ExitStack
from statistics import median

import peers
from processes import Crowd, free_port, until
from report import progress, say, spread, table

COMPONENTS = 10_000
FILES_OF_SIDECAR = 200  # file descriptors, except those of sessions
SETTLED_SECONDS = 5


def run(folder, runs, part, targets):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = int(COMPONENTS * part)
    count = min(wanted, (files - FILES_OF_SIDECAR) // 2)
    runs = min(runs, 3)
    memory, moved, lost = [], [], 0
    for number in range(runs):
        progress(f"idle components: run {number + 1} of {runs}")
        bytes_each, seconds, missing = once(folder, count)
        memory.append(bytes_each / 1024)
        moved.append(seconds)
        lost += missing
    say(f"### {count:,} idle components with one subscription each, {runs} runs\n")
    if count < wanted:
        say(f"{count:,} and not {wanted:,}, because each needs two file descriptors of the sidecar, and the limit here is {files:,}.\n")
    rows = [["resident memory for each, KiB", *(f"{value:.2f}" for value in spread(memory))]]
    rows.append(["node killed: seconds until each got a message again", *(f"{value:.2f}" for value in spread(moved))])
    table(["", "median", "(max − min) / median"], rows)
    targets.check("resident memory for each idle component", median(memory), 8, "KiB")
    targets.check(f"{count:,} components moved within", max(moved), 5, "s")
    targets.check("components lost", lost, 0, "")
    say()


def once(folder, count, of_nodes="", of_sidecar=""):
    """Returns the sidecar's bytes per component, the seconds to move all, and the number of those lost or never reached. The last
    arguments are settings."""
    with ExitStack() as running:
        ports = [free_port() for _ in range(3)]

        def node(number):
            return running.enter_context(peers.Node(folder, f"node-{number}", ports[number], ports, settings=of_nodes))

        first = node(0)
        sidecar = running.enter_context(peers.sidecar(folder, [first.port], settings=of_sidecar))
        before = sidecar.rss_bytes()
        words = ["idle", "--server", f"127.0.0.1:{sidecar.port}", "--components", count]
        crowd = running.enter_context(Crowd(folder, *words))
        time.sleep(SETTLED_SECONDS)
        bytes_each = (sidecar.rss_bytes() - before) / count
        # The other nodes start after the components, so that every component is on the first node.
        nodes = [first, node(1), node(2)]
        peers.joined(nodes)
        until("the sidecar knows all nodes", lambda: peers.get_json(sidecar.http, "/nodez")["total"] == len(nodes))
        first.signal(signal.SIGKILL)
        heard = crowd.ask(f"hear 127.0.0.1:{nodes[1].port}")
        return bytes_each, heard["seconds"], heard["lost"] + heard["deaf"]
