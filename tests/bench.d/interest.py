"""What a node knows of subscriptions, by its own pages."""

import http.client
import json

from processes import until

# Keeps nats-server's own subscriptions out; ours has no accounts.
SUBSCRIPTIONS_PAGE = "/subsz?acc=$G"
SYSTEM_ACCOUNT = "$SYS"


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
            self.pages.close()  # else it takes no further request
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
