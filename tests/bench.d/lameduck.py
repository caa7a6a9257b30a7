"""A rolling restart of three nodes of nats-server in lame duck mode: clients behind sidecars, and nats-py connected to the nodes directly."""

import signal
from contextlib import ExitStack
from pathlib import Path

import peers
from cluster import SIZE
from processes import TARGET, Crowd, free_port
from report import progress, say, table
from rolling import HEADS, behind_sidecars, restarted

# Both are the shortest that nats-server takes, or nearly so.
LAME_DUCK = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'
RATE = 2_000
PYTHON = TARGET / "peers/python/bin/python"
CLIENT = Path(__file__).parent / "lameduck_client.py"


def run(folder, runs, part, targets):
    rows = []
    for who, start in (("sidecars", behind_sidecars), ("nats-py", newest_client)):
        progress(f"rolling restart of nats-server, {who}")
        with ExitStack() as running:
            ports = [free_port() for _ in range(SIZE)]
            nodes = [
                running.enter_context(peers.Node(folder, f"nats-{number}", port, ports, settings=LAME_DUCK))
                for number, port in enumerate(ports)
            ]
            peers.joined(nodes)
            crowd = start(folder, nodes, RATE, running)
            _, row = restarted(nodes, crowd, signal.SIGUSR2, 1)
        rows.append([who, "0 ms", *row])
    say("### The same with three nodes of nats-server in lame duck mode, one round: clients behind sidecars, and nats-py connected directly\n")
    say(f"{RATE:,} messages per second. The load with nats-py has one subscription for each subscriber, not two.\n")
    table(["client", *HEADS[1:]], rows)
    say()


def newest_client(folder, nodes, rate, running):
    servers = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return running.enter_context(Crowd(folder, servers, rate, program=(PYTHON, CLIENT)))
