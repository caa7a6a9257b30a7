"""A million subscriptions: memory of each, and CPU time per message without and with churn (subscriptions made and ended)."""

from pair import OURS, THEIRS, Case, address, start
from processes import Crowd
from report import say, table

SUBSCRIPTIONS, SUBSCRIPTIONS_QUICK = 1_000_000, 100_000
SECONDS, SECONDS_QUICK = 5, 2
CHURN = 10_000  # subscriptions made and ended each second
MEMORY_TARGET = 0.5


def run(folder, runs, part, targets):
    quick = part < 1
    count = SUBSCRIPTIONS_QUICK if quick else SUBSCRIPTIONS
    words = ["--subscriptions", count, "--churn", CHURN, "--seconds", SECONDS_QUICK if quick else SECONDS]
    memory = Case("subscriptions")
    cases = {"publish": Case(f"{count:,} subscriptions"), "churn": Case(f"the same, churn of {CHURN:,}/s")}
    runs = min(runs, 3)
    for who in memory.in_turn(runs):
        with start(folder, who) as server:
            once(folder, who, server, count, words, memory, cases)
    say(f"### {count:,} subscriptions, one in ten with a wildcard, medians of {runs} runs in turn\n")
    table(["", "resident bytes for each", "seconds to make all"], [memory_row(memory, who) for who in (OURS, THEIRS)])
    say("Messages of 128 B to random subjects of these, at full speed. In each cell: ours / nats-server's = ratio.\n")
    head = ["", "CPU µs per message", "messages/s", "replaced each second"]
    table(head, [row(case) for case in cases.values()])
    targets.check("memory of a subscription ÷ nats-server's", memory.ratio("bytes"), MEMORY_TARGET, "×")
    say()
    return list(cases.values())


def memory_row(memory, who):
    return [who, f"{memory.median('bytes', who):.0f}", f"{memory.median('seconds', who):.2f}"]


def row(case):
    return [case.name, case.beside("cpu", 2), case.beside("rate"), case.beside("churn")]


def once(folder, who, server, count, words, memory, cases):
    before = server.rss_bytes()
    with Crowd(folder, "subscriptions", "--server", address(server), *words) as crowd:
        memory.add("bytes", who, (server.rss_bytes() - before) / count)
        memory.add("seconds", who, crowd.ready["seconds"])
        for command, case in cases.items():
            before = server.cpu_ns()
            done = crowd.ask(command)
            case.add("cpu", who, server.cpu_ns_since(before) / 1000 / done["messages"])
            case.add("rate", who, done["messages_per_second"])
            if command == "churn":
                case.add("churn", who, done["churned_per_second"])

