"""Time until the interest of a killed node is gone on the other nodes."""

import signal
import socket
import time

from cluster import Cluster
from interest import Interest, wait_until_known
from pair import OURS, Case, address
from processes import Crowd, seconds_until
from report import say, table

SUBSCRIPTIONS = 10_000
TARGET_MAX_MS = 50
# name, words for the load generator
CASES = [
    (f"{SUBSCRIPTIONS:,} clients with one each", ["idle", "--components", SUBSCRIPTIONS]),
    (f"one client with {SUBSCRIPTIONS:,}", ["subscriptions", "--subscriptions", SUBSCRIPTIONS]),
]


def run(folder, runs, part, targets):
    cases = []
    for name, words in CASES:
        case = Case(name)
        for who in case.in_turn(runs):
            once(folder, who, words, case)
        cases.append(case)
        longest = max(case.figures["gone"][OURS])
        targets.later(f"interest gone on every other node, {name} (max)", longest, TARGET_MAX_MS, "ms")
    say(f"### A node with {SUBSCRIPTIONS:,} subscriptions is killed (-9), medians of {runs} runs in turn\n")
    say("Milliseconds until the pages of every other node show none of its subscriptions, and until the oldest client of the")
    say("killed node loses its connection. The kernel closes the newest sockets of a dead process first, so the oldest")
    say("client's connection ends last; routes that are as old end as late. nats-server stops serving some ms before its")
    say("pages show it. In each cell: ours / nats-server's = ratio.\n")
    head = ["subscriptions", "interest gone, ms", "oldest client's connection closed, ms"]
    table(head, [[case.name, case.beside("gone", 1), case.beside("closed", 1)] for case in cases])
    targets.tell()


def once(folder, who, words, case):
    with Cluster(folder, who) as nodes:
        victim, *others = nodes.nodes
        interests = [Interest(node).remember() for node in others]
        with witness(victim) as connection, Crowd(folder, *words, "--server", address(victim)):
            wait_until_known(others, SUBSCRIPTIONS)
            gone, closed = kill(victim, interests, connection)
            case.add("gone", who, gone * 1000)
            case.add("closed", who, closed * 1000)


def witness(node):
    """Returns the non-blocking connection of a client."""
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.sendall(b'CONNECT {"verbose":false}\r\n')
    connection.setblocking(False)
    return connection


def kill(victim, interests, connection):
    """Kills the node. Returns the seconds until its interest is gone everywhere, and until the connection has ended."""
    started = time.monotonic()
    victim.signal(signal.SIGKILL)
    closed, *gone = seconds_until([lambda: has_ended(connection), *(interest.has_forgotten for interest in interests)], started)
    return max(gone), closed


def has_ended(connection):
    try:
        while connection.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
