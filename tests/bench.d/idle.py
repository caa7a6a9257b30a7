"""Memory of an idle connection, of our broker and of nats-server."""

from pair import OURS, THEIRS, Case, address, start
from processes import Crowd
from report import say, table

CONNECTIONS = 4_000
TARGET_MAX = 0.25


def run(folder, runs, part, targets):
    count = int(CONNECTIONS * part)
    case = Case("idle connections")
    for who in case.in_turn(min(runs, 3)):
        with start(folder, who) as server:
            before = server.rss_bytes()
            with Crowd(folder, "idle", "--server", address(server), "--components", count):
                case.add("KiB", who, (server.rss_bytes() - before) / 1024 / count)
    say(f"### {count:,} idle connections with one subscription each\n")
    table(["", "resident KiB for each"], [[who, f"{case.median('KiB', who):.1f}"] for who in (OURS, THEIRS)])
    targets.check("memory of an idle connection ÷ nats-server's", case.ratio("KiB"), TARGET_MAX, "×")
    say()
