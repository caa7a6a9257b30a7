"""The interest that a node has, read from its monitoring pages."""

import http.client
import json

from processes import until

# Excludes the subscriptions of nats-server itself. Those of clients are in the default account.
SUBSCRIPTIONS_PAGE = "/subsz?acc=$G"
SYSTEM_ACCOUNT = "$SYS"


class Interest:
    """Number of subscriptions that a node has, of its clients and of other nodes, read over one connection."""

    def __init__(self, node):
        self.pages = http.client.HTTPConnection("127.0.0.1", node.http, timeout=10)
        self.before = None

    def knows(self, count):
        """Returns whether the node has at least this many. A node that does not serve its pages yet has none."""
        try:
            return self.subscriptions() >= count or self.from_links() >= count
        except ConnectionRefusedError:
            self.pages.close()  # the connection object then accepts another request
            return False

    def remember(self):
        """Records the present numbers for `has_forgotten`."""
        self.before = self.subscriptions(), self.from_links()
        return self

    def has_forgotten(self):
        """Returns whether the node has no more than at the time of `remember`."""
        subscriptions, from_links = self.before
        return self.subscriptions() <= subscriptions and self.from_links() <= from_links

    def subscriptions(self):
        """Returns the number on `/subsz`, which may include the subscriptions of other nodes."""
        return self._get(SUBSCRIPTIONS_PAGE)["num_subscriptions"]

    def from_links(self):
        """Returns the number of subscriptions of other nodes, from `/routez`."""
        routes = self._get("/routez")["routes"] or []
        return sum(route["subscriptions"] for route in routes if route.get("account") != SYSTEM_ACCOUNT)

    def _get(self, page):
        self.pages.request("GET", page)
        return json.load(self.pages.getresponse())


def wait_until_known(nodes, count):
    """Waits until each of the nodes has this many subscriptions."""
    for node in nodes:
        interest = Interest(node)
        until(f"{node.name} knows {count:,} subscriptions", lambda: interest.knows(count), seconds_max=60)
