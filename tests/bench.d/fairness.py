"""Latency of messages and replies while a publisher sends as fast as the server accepts."""

from contextlib import ExitStack

import latency
from pair import Case, address, both
from report import say, table

# name, measurement, words for the load generator
CASES = [
    ("request and reply, 1 client", "request", ["--requests", 5_000]),
    ("1,000 messages/s, open loop", "latency", ["--rate", 1_000, "--seconds", 3]),
]


def run(folder, runs, part, targets):
    cases = []
    with ExitStack() as running:
        servers = both(folder, running)
        for name, measurement, words in CASES:
            case = Case(name)
            for who in case.in_turn(runs):
                firehose = ["--firehose", address(servers[who])]
                done = latency.once(case, who, servers[who], measurement, [*words, *firehose])
                case.add("firehose", who, done["firehose_messages_per_second"] / 1000)
            cases.append(case)
    say(f"### Next to a firehose of 128 B messages, medians of {runs} runs in turn\n")
    say("In each cell: ours / nats-server's = ratio. The rate of the firehose is a result too, like the latencies.\n")
    head = ["case", *(f"{what} µs" for what in latency.QUANTILES), "requests/s", "firehose, 1,000 messages/s"]
    columns = [*latency.QUANTILES, "rate", "firehose"]
    table(head, [[case.name, *map(case.beside, columns)] for case in cases])
