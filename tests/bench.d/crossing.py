"""CPU time per message and throughput from one node to another."""

from contextlib import ExitStack

import throughput
from cluster import both
from pair import Case
from report import say, table

# name, messages, nodes of the subscribers (the publisher is on node 0), payload, targets ours ÷ theirs: CPU at most, throughput
# at least
CASES = [
    ("1→1 on another node, 16 B", 1_500_000, (1,), 16, None, None),
    ("1→1 on another node, 128 B", 1_000_000, (1,), 128, 0.5, 1.4),
    ("1→1 on another node, 4 KiB", 100_000, (1,), 4096, None, None),
    ("1→6, two on each node, 128 B", 200_000, (0, 1, 2, 0, 1, 2), 128, 0.5, None),
]


def run(folder, runs, part, targets):
    cases = []
    with ExitStack() as running:
        clusters = both(folder, running)
        for name, messages, places, payload, cpu_max, rate_min in CASES:
            case = Case(name)
            words = ["--messages", int(messages * part), "--payload", payload, "--subscribers", len(places)]
            for who in case.in_turn(runs):
                nodes = clusters[who]
                ends = ["--publishers-at", nodes.addresses(0), "--subscribers-at", nodes.addresses(*places)]
                throughput.measure(case, who, nodes, [*ends, *words])
            cases.append(case)
            if cpu_max:
                case.check_later(targets, "cpu", "CPU", cpu_max)
            if rate_min:
                case.check_rate_later(targets, rate_min)
    say(f"### From node to node at full speed, CPU of all three nodes, medians of {runs} runs in turn\n")
    table(throughput.HEAD, [throughput.row(case) for case in cases])
    targets.tell()
