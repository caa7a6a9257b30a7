"""One standin-proxy on the host of the components."""

import pages
from client import Door
from program import Program

LISTEN, HTTP = 4300, 8300
# After a fault the run waits until no node is down for a sidecar, so probes are more frequent than by default.
PROBE_MS = 5000


class Sidecar(Program):
    """A sidecar that finds the nodes in ZooKeeper. It logs in for its components, if it holds the credentials."""

    def __init__(self, folder, number, host, binary, zookeeper, login, cache_file, holds_login=False, env=None):
        name = f"sidecar-{number}"
        self.listen, self.http, self.cache_file = LISTEN + number, HTTP + number, cache_file
        credentials = (
            f'credentials = {{ user = "{login["user"]}", password = "{login["pass"]}" }}' if holds_login else ""
        )
        settings = folder / f"{name}.toml"
        settings.write_text(
            f"""
listen = ["127.0.0.1:{self.listen}"]
nodes = {{ zookeeper = "{zookeeper}", zookeeper_session_timeout_ms = 4000, cache_file = "{cache_file}" }}
health = {{ idle_probe_interval_ms = {PROBE_MS} }}
http = {{ listen = "127.0.0.1:{self.http}" }}
{credentials}
"""
        )
        settings.chmod(0o600)
        log = folder / f"{name}.log"
        super().__init__(name, "sidecar", host, [binary, "--config", settings], log, env)
        self.logs = [log]
        self.door = Door(name, ("127.0.0.1", self.listen), {} if holds_login else login)

    async def trouble(self, nodes):
        """Returns what is not as it should be, or None. `nodes` is the number of nodes in the cluster."""
        known = await pages.get_json("127.0.0.1", self.http, "/nodez")
        sessions = await pages.get_json("127.0.0.1", self.http, "/sessionz")
        if known is None or sessions is None:
            return f"{self.name} does not serve its pages"
        up = [row for row in known["items"] if row["state"] in ("up", "unproved")]
        if len(up) < nodes:
            return f"{self.name} has {len(up)} of {nodes} nodes: {[row['state'] for row in known['items']]}"
        without = [row for row in sessions["items"] if not row.get("node") or row["state"] == "joining"]
        return f"{self.name} has {len(without)} sessions without a node" if without else None

    async def sessions(self):
        page = await pages.get_json("127.0.0.1", self.http, "/sessionz")
        return page["items"] if page else []

    async def metrics(self):
        return await pages.metrics("127.0.0.1", self.http)
