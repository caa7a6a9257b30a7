"""One standin-broker on its own host."""

import pages
from program import Program

CLIENT, ROUTE, HTTP = 4222, 6222, 8222
# The harness has one thread for all components, and is slow on a busy machine.
LOGIN_MS = 10_000


class Node(Program):
    """A node of the cluster. Nodes find each other in ZooKeeper."""

    def __init__(self, folder, number, host, binary, zookeeper, login, log_file=None, env=None):
        self.address = host.address
        name = f"node-{number}"
        settings = folder / f"{name}.toml"
        settings.write_text(
            f"""
addr = "{self.address}"
port = {CLIENT}
server_name = "{name}"
authorization = {{ user = "{login["user"]}", password = "{login["pass"]}", timeout_ms = {LOGIN_MS} }}
limits = {{ ping_interval_ms = 2000 }}
nodes = {{ zookeeper = "{zookeeper}", zookeeper_session_timeout_ms = 4000 }}
cluster = {{ name = "soak", listen = "{self.address}:{ROUTE}" }}
http = {{ addr = "{self.address}", port = {HTTP} }}
process = {{ lame_duck_grace_secs = 1, lame_duck_secs = 1 }}
log = {{ file = "{log_file or ""}" }}
"""
        )
        settings.chmod(0o600)
        log = folder / f"{name}.log"
        super().__init__(name, "broker", host, [binary, "--config", settings], log, env)
        # Files with log lines of the program.
        self.logs = [log, log_file] if log_file else [log]

    async def trouble(self, peers):
        """Returns what is not as it should be, or None. `peers` is the number of other nodes."""
        page = await pages.get_json(self.address, HTTP, "/routez")
        if page is None:
            return f"{self.name} does not serve its pages"
        routes = {route["remote_id"] for route in page["routes"] or []}
        return None if len(routes) == peers else f"{self.name} has routes to {len(routes)} of {peers} nodes"

    async def clients(self):
        page = await pages.get_json(self.address, HTTP, "/varz")
        return page and page["connections"]
