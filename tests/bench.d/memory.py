"""Memory of a subscription on each node of a cluster, and the bytes sent for it between nodes."""

import time

from cluster import Cluster
from interest import wait_until_known
from pair import OURS, THEIRS, Case, address
from processes import Crowd
from report import say, table
from subscriptions import SUBSCRIPTIONS, SUBSCRIPTIONS_QUICK


def run(folder, runs, part, targets):
    count = SUBSCRIPTIONS_QUICK if part < 1 else SUBSCRIPTIONS
    case = Case("subscriptions")
    runs = min(runs, 3)
    for who in case.in_turn(runs):
        once(folder, who, count, case)
    say(f"### {count:,} different subscriptions on one node of three, medians of {runs} runs in turn\n")
    say("In each cell: ours / nats-server's = ratio. The last row has no ratio, but the figures of nodes 0, 1, 2.\n")
    rows = [
        ["resident bytes for each, on their node", case.beside("own")],
        ["on each of the other nodes", case.beside("other")],
        ["bytes sent for each over each link", case.beside("link", 1)],
        ["seconds until all are made", case.beside("made", 2)],
        ["seconds until every node knows them", case.beside("known", 2)],
        ["resident MiB in total, of each node", rss_of_each(case)],
    ]
    table(["", "ours / nats-server's"], rows)


def once(folder, who, count, case):
    with Cluster(folder, who) as nodes:
        rss, links = rss_bytes(nodes), nodes.link_bytes()
        started = time.monotonic()
        with Crowd(folder, "subscriptions", "--server", address(nodes.nodes[0]), "--subscriptions", count) as crowd:
            wait_until_known(nodes.nodes, count)
            case.add("known", who, time.monotonic() - started)
            case.add("made", who, crowd.ready["seconds"])
            now = rss_bytes(nodes)
            own, *others = ((after - before) / count for before, after in zip(rss, now))
            case.add("own", who, own)
            case.add("other", who, sum(others) / len(others))
            case.add("link", who, (nodes.link_bytes() - links) / count / len(others))
            for number, value in enumerate(now):
                case.add(f"node {number}", who, value / 1024 / 1024)


def rss_bytes(nodes):
    return [node.rss_bytes() for node in nodes.nodes]


def rss_of_each(case):
    each = lambda who: ", ".join(f"{case.median(f'node {number}', who):,.0f}" for number in range(3))
    return f"{each(OURS)} / {each(THEIRS)}"
