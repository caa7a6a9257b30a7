"""CPU time per message and throughput with TLS, of our broker and nats-server."""

from contextlib import ExitStack

import throughput
from certificates import Certificates
from pair import Case, address, both
from report import say, table

# name, messages, payload, target of the CPU (ours ÷ nats-server's), at most
CASES = [("1→1, 128 B, TLS", 500_000, 128, 0.5), ("1→1, 4 KiB, TLS", 60_000, 4096, None)]


def run(folder, runs, part, targets):
    certificates = Certificates(folder)
    cases = []
    with ExitStack() as running:
        servers = both(folder, running, certificates.of_node())
        for name, messages, payload, cpu_max in CASES:
            case = Case(name)
            words = ["--messages", int(messages * part), "--payload", payload, *certificates.of_load()]
            for who in case.in_turn(runs):
                throughput.measure(case, who, servers[who], ["--server", address(servers[who]), *words])
            cases.append(case)
            if cpu_max:
                case.check_later(targets, "cpu", "CPU", cpu_max)
    say(f"### Full speed with TLS, medians of {runs} runs in turn\n")
    table(throughput.HEAD, [throughput.row(case) for case in cases])
    targets.tell()
