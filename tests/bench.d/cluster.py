"""Clusters of our broker and of the newest nats-server: the same flags for both, measured as one."""

import http.client
import json
import subprocess

import peers
from pair import OURS, THEIRS, address
from processes import free_port, standin_broker, until

SIZE = 3
# Keeps nats-server's own subscriptions out; ours has no accounts.
SUBSCRIPTIONS_PAGE = "/subsz?acc=$G"
SYSTEM_ACCOUNT = "$SYS"


class Cluster:
    """Nodes 0, 1, 2 of one cluster, all linked. CPU time is that of all together, as of one process."""

    def __init__(self, folder, who):
        self.folder, self.who = folder, who
        self.ports = [free_port() for _ in range(SIZE)]
        self.nodes = [self._node(number, port) for number, port in enumerate(self.ports)]
        # All at once: a node may wait for others before it takes clients.
        for node in self.nodes:
            node.listening()
        peers.joined(self.nodes)

    def _node(self, number, port):
        program = standin_broker() if self.who == OURS else None
        return peers.Node(self.folder, f"{self.who}-{number}", port, self.ports, program=program, wait=False)

    def start_another(self):
        """One node more, which nothing has been waited for; it knows the others, but they do not know it."""
        node = self._node(len(self.nodes), free_port())
        self.nodes.append(node)
        return node

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.kill()

    def addresses(self, *numbers):
        """Those of some nodes, for the load generator."""
        return ",".join(address(self.nodes[number]) for number in numbers)

    def cpu_ns(self):
        return {thread: time for node in self.nodes for thread, time in node.cpu_ns().items()}

    def cpu_ns_since(self, before):
        return sum(now - before.get(thread, 0) for thread, now in self.cpu_ns().items())

    def link_bytes(self):
        """Bytes that all nodes have sent to each other so far, as the kernel counts them: pages count payloads only."""
        ports = " or ".join(f"sport = :{port} or dport = :{port}" for port in self.ports)
        sockets = subprocess.run(["ss", "-tinHO", f"( {ports} )"], capture_output=True, text=True, check=True).stdout
        counts = (word.removeprefix("bytes_sent:") for word in sockets.split() if word.startswith("bytes_sent:"))
        return sum(map(int, counts))


def both(folder, running):
    """A cluster of each maker, by its name; `running` is the ExitStack that ends them."""
    return {who: running.enter_context(Cluster(folder, who)) for who in (OURS, THEIRS)}


class Interest:
    """How many subscriptions a node knows, its own clients' and other nodes', asked often on one connection."""

    def __init__(self, node):
        self.pages = http.client.HTTPConnection("127.0.0.1", node.http, timeout=10)
        self.before = None

    def knows(self, count):
        """Whether it knows so many. A node that does not serve its pages yet knows none."""
        try:
            return self.subscriptions() >= count or self.from_links() >= count
        except ConnectionRefusedError:
            return False

    def remember(self):
        """What it knows now is what it knows when others have come and gone."""
        self.before = self.subscriptions(), self.from_links()
        return self

    def has_forgotten(self):
        """Whether it knows no more than it remembers."""
        subscriptions, from_links = self.before
        return self.subscriptions() <= subscriptions and self.from_links() <= from_links

    def subscriptions(self):
        """All, where the page counts other nodes' too."""
        return self._get(SUBSCRIPTIONS_PAGE)["num_subscriptions"]

    def from_links(self):
        """Other nodes' only."""
        routes = self._get("/routez")["routes"] or []
        return sum(route["subscriptions"] for route in routes if route.get("account") != SYSTEM_ACCOUNT)

    def _get(self, page):
        self.pages.request("GET", page)
        return json.load(self.pages.getresponse())


def wait_until_known(nodes, count):
    """Waits until each of the nodes knows so many subscriptions."""
    for node in nodes:
        interest = Interest(node)
        until(f"{node.name} knows {count:,} subscriptions", lambda: interest.knows(count), seconds_max=60)
