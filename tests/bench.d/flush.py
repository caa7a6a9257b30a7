"""Messages that a subscriber missed, although they were published (on another node) after the PONG to its SUB and PING."""

from contextlib import ExitStack

from cluster import both
from pair import OURS, THEIRS, Case
from processes import load
from report import say, table

ROUNDS = 400


def run(folder, runs, part, targets):
    case = Case("flush")
    with ExitStack() as running:
        clusters = both(folder, running)
        for who in case.in_turn(runs):
            nodes = clusters[who]
            ends = ["--subscriber", nodes.addresses(0), "--publisher", nodes.addresses(1)]
            done = load("flush", *ends, "--rounds", ROUNDS)
            case.add("missed", who, done["missed"])
            case.add("p50", who, done["p50_us"])
            case.add("p99", who, done["p99_us"])
    say("### SUB, PING, PONG on one node, then at once a publish on another\n")
    head = ["", f"messages missed of {ROUNDS * runs:,}", "SUB → PONG p50, µs", "p99, µs"]
    table(head, [row(case, who) for who in (OURS, THEIRS)])
    targets.check("messages missed after SUB, PING, PONG", sum(case.figures["missed"][OURS]), 0, "")
    say()


def row(case, who):
    return [who, sum(case.figures["missed"][who]), *(f"{case.median(what, who):.0f}" for what in ("p50", "p99"))]
