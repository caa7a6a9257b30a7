"""Latency and CPU time of a reply from another node."""

from contextlib import ExitStack

import latency
from cluster import both
from pair import Case
from report import say, table

# name, requests, requesters, targets (ours ÷ nats-server's)
CASES = [
    ("request to another node, 1 client", 10_000, 1, {"p50": 0.8}),
    ("request to another node, 16 clients", 50_000, 16, {}),
]


def run(folder, runs, part, targets):
    cases = []
    runs *= latency.ROUNDS
    with ExitStack() as running:
        clusters = both(folder, running)
        for name, requests, clients, limits in CASES:
            case = Case(name)
            requests = int(requests * part)
            for who in case.in_turn(runs):
                nodes = clusters[who]
                ends = ["--requester", nodes.addresses(0), "--responder", nodes.addresses(1)]
                before = nodes.cpu_ns()
                latency.measure(case, who, "request", [*ends, "--requests", requests, "--clients", clients])
                case.add("cpu", who, nodes.cpu_ns_since(before) / 1000 / requests)
            cases.append(case)
            latency.check(case, limits, targets)
    say(f"### Requester and responder on different nodes, CPU of all three nodes, medians of {runs} runs in turn\n")
    say("In each cell: ours / nats-server's = ratio.\n")
    table(latency.HEAD, [latency.row(case) for case in cases])
    targets.tell()
