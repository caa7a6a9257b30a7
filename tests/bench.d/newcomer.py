"""Time until a node that joins a cluster has the interest of many subscriptions."""

import time

from cluster import Cluster
from interest import Interest, wait_until_known
from pair import OURS, Case, address
from processes import Crowd, accepts, seconds_until
from report import say, table

SUBSCRIPTIONS = 100_000
TARGET_MAX = 1
# name, nodes of the subscriptions
CASES = [("all on one node", (0,)), ("a third on each node", (0, 1, 2))]


def run(folder, runs, part, targets):
    cases = []
    for name, places in CASES:
        case = Case(name)
        for who in case.in_turn(runs):
            once(folder, who, places, case)
        cases.append(case)
        longest = max(case.figures["knows"][OURS])
        targets.later(f"a new node knows {SUBSCRIPTIONS:,} subscriptions, {name} (max)", longest, TARGET_MAX, "s")
    say(f"### A fourth node joins a cluster with {SUBSCRIPTIONS:,} subscriptions, medians of {runs} runs in turn\n")
    say("Seconds from the start of its process until it accepts clients, until it knows all interest, and until messages")
    say("that are published there have reached subscribers on all nodes. In each cell: ours / nats-server's = ratio.\n")
    head = ["subscriptions", "accepts clients", "knows all", "reaches all"]
    table(head, [[case.name, *(case.beside(what, 3) for what in ("accepts", "knows", "reaches"))] for case in cases])
    targets.tell()


def once(folder, who, places, case):
    with Cluster(folder, who) as nodes:
        words = ["--server", nodes.addresses(*places), "--connections", len(places), "--subscriptions", SUBSCRIPTIONS]
        with Crowd(folder, "subscriptions", *words) as crowd:
            wait_until_known(nodes.nodes, SUBSCRIPTIONS)
            started = time.monotonic()
            node = nodes.start_another()
            told_at = time.monotonic()
            crowd.tell(f"reach {address(node)}")
            interest = Interest(node)
            tests = [lambda: accepts(node.port), lambda: interest.knows(SUBSCRIPTIONS)]
            accepted, known = seconds_until(tests, started)
            # The load generator measures the time from the command on, because its answer is read late.
            case.add("reaches", who, told_at - started + crowd.answer()["seconds"])
            case.add("accepts", who, accepted)
            case.add("knows", who, known)
