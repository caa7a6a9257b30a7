"""CPU time per message of the sidecar with TLS to its node, beside HAProxy, and the time to move sessions with TLS."""

from contextlib import ExitStack
from statistics import median

import crowd
import peers
from certificates import Certificates
from passing import PAYLOADS, PEER, REQUESTERS, SIDECAR, Position, ratio
from report import progress, say, spread, table

FACTOR = 0.4  # of the messages without TLS, because each takes longer
COMPONENTS = 1_000


def run(folder, runs, part, targets):
    certificates = Certificates(folder)
    passing(folder, certificates, runs, part * FACTOR, targets)
    moves(folder, certificates, min(runs, 3), targets)


def passing(folder, certificates, runs, part, targets):
    with ExitStack() as running:
        # HAProxy cannot wait for INFO, so TLS begins before it.
        node = running.enter_context(peers.Node(folder, "node", settings=certificates.of_node("handshake_first: true")))
        settings = certificates.of_sidecar('handshake_first = "yes"')
        sidecar = running.enter_context(peers.sidecar(folder, [node.port], settings=settings))
        haproxy = running.enter_context(peers.haproxy(folder, node.port, certificates.of_haproxy()))
        ours, peer = both = Position(SIDECAR, sidecar, sidecar.port), Position(PEER, haproxy, haproxy.port)
        for number in range(runs):
            progress(f"messages that pass with TLS: run {number + 1} of {runs}")
            in_turn = both if number % 2 == 0 else both[::-1]
            for requesters, requests in REQUESTERS.items():
                for position in in_turn:
                    position.request(requesters, int(requests * part))
            for size, messages in PAYLOADS.items():
                for position in in_turn:
                    position.flow(size, int(messages * part))
    say(f"### TLS to the node, components without TLS, medians of {runs} runs in turn\n")
    rows = [row(f"message of {size} B", ours.cpu[size], peer.cpu[size]) for size in PAYLOADS]
    rows += [row(f"request, requesters: {count}", ours.request_cpu[count], peer.request_cpu[count]) for count in REQUESTERS]
    table(["", "CPU µs, sidecar", "CPU µs, HAProxy", "÷"], rows)
    for size in PAYLOADS:
        targets.check(f"CPU per message of {size} B with TLS ÷ HAProxy's", ratio(ours.cpu[size], peer.cpu[size]), 1, "×")
    for count in REQUESTERS:
        value = ratio(ours.request_cpu[count], peer.request_cpu[count])
        targets.check(f"CPU per request with TLS ÷ HAProxy's, requesters: {count}", value, 1, "×")
    say()


def row(name, ours, theirs):
    cells = [f"{middle:.3f} ± {apart * 50:.0f} %" for middle, apart in map(spread, (ours, theirs))]
    return [name, *cells, f"**{ratio(ours, theirs):.2f}**"]


def moves(folder, certificates, runs, targets):
    # The nodes take clients without TLS too, because the load generator publishes to the last of them.
    nodes, sidecar = certificates.of_node() + "allow_non_tls: true\n", certificates.of_sidecar()
    memory, moved, lost = [], [], 0
    for number in range(runs):
        progress(f"idle components with TLS: run {number + 1} of {runs}")
        bytes_each, seconds, missing = crowd.once(folder, COMPONENTS, nodes, sidecar)
        memory.append(bytes_each / 1024)
        moved.append(seconds)
        lost += missing
    say(f"### {COMPONENTS:,} idle components, each with a TLS session to its node, {runs} runs\n")
    rows = [["resident memory for each, KiB", f"{median(memory):.1f}", f"{max(memory):.1f}"]]
    rows.append(["node killed: seconds until each got a message again", f"{median(moved):.2f}", f"{max(moved):.2f}"])
    table(["", "median", "max"], rows)
    targets.check(f"{COMPONENTS:,} components with TLS moved within", max(moved), 1, "s")
    targets.check("components with TLS lost", lost, 0, "")
    say()
