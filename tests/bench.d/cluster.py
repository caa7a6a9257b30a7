"""Clusters of our broker and of the newest nats-server, with the same flags, each measured as a whole."""

import subprocess

import peers
from pair import OURS, THEIRS, address
from processes import free_port, standin_broker

SIZE = 3


class Cluster:
    """Nodes 0, 1, 2 of one cluster, with routes to each other. CPU time is that of all nodes together."""

    def __init__(self, folder, who, settings=""):
        self.folder, self.who, self.settings = folder, who, settings
        self.ports = [free_port() for _ in range(SIZE)]
        self.nodes = [self._node(number, port) for number, port in enumerate(self.ports)]
        # All are started before the first wait, because a node may wait for the others before it accepts clients.
        for node in self.nodes:
            node.listening()
        peers.joined(self.nodes)

    def _node(self, number, port):
        program = standin_broker() if self.who == OURS else None
        name = f"{self.who}-{number}"
        return peers.Node(self.folder, name, port, self.ports, program=program, settings=self.settings, wait=False)

    def start_another(self):
        """Starts one more node and does not wait. It has the addresses of the others, but they do not have its address."""
        node = self._node(len(self.nodes), free_port())
        self.nodes.append(node)
        return node

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.kill()

    def addresses(self, *numbers):
        """Returns the addresses of these nodes, for the load generator."""
        return ",".join(address(self.nodes[number]) for number in numbers)

    def cpu_ns(self):
        return {thread: time for node in self.nodes for thread, time in node.cpu_ns().items()}

    def cpu_ns_since(self, before):
        return sum(now - before.get(thread, 0) for thread, now in self.cpu_ns().items())

    def link_bytes(self):
        """Returns the bytes that all nodes have sent to each other, as counted by the kernel (monitoring pages count only payloads)."""
        ports = " or ".join(f"sport = :{port} or dport = :{port}" for port in self.ports)
        sockets = subprocess.run(["ss", "-tinHO", f"( {ports} )"], capture_output=True, text=True, check=True).stdout
        counts = (word.removeprefix("bytes_sent:") for word in sockets.split() if word.startswith("bytes_sent:"))
        return sum(map(int, counts))


def both(folder, running, settings=""):
    """Starts a cluster of each program. `running` is the ExitStack that ends them."""
    return {who: running.enter_context(Cluster(folder, who, settings)) for who in (OURS, THEIRS)}
