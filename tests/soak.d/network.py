"""The network of a run: one switch; the host of the harness, with sidecars, components and ZooKeeper; and a host for each node.

A fault is silence, delay or loss, as on a bad cable, and never a reset. `tests/src/lan.rs` uses the same means: frames to a
link-layer address that does not exist are lost, and `cable.py` delays the frames of a host. The kernel needs no `netem` for that.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

CABLE = Path(__file__).resolve().parents[1] / "src" / "cable.py"
NO_STATION = "02:00:00:00:00:01"
BRIDGE = "switch"
SWITCH = "soak-switch"
# A classic BPF program that drops every frame. cable.py receives a copy of each frame before that.
DROP_ALL = "1,6 0 0 2"


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


class Host:
    """A network namespace with one cable to the switch. The harness's own host has no name."""

    def __init__(self, number, addresses, name=None):
        self.number, self.addresses, self.name = number, addresses, name
        self.port = f"port{number}"
        self.slow = None

    @property
    def address(self):
        return self.addresses[0]

    def inside(self, command):
        """Returns the command line that runs this command on the host."""
        return ["ip", "netns", "exec", self.name, *command] if self.name else command

    def ip(self, *words):
        run("ip", *(["-n", self.name] if self.name else []), *words)


class Network:
    """All hosts, and the faults between them."""

    def __init__(self, own_addresses, node_addresses):
        run("mkdir", "-p", "/run/netns")
        run("mount", "-t", "tmpfs", "netns", "/run/netns")
        run("ip", "netns", "add", SWITCH)
        run("ip", "-n", SWITCH, "link", "add", BRIDGE, "type", "bridge")
        run("ip", "-n", SWITCH, "link", "set", BRIDGE, "up")
        self.own = Host(0, own_addresses)
        self.nodes = [Host(number, [address], f"soak-{number}") for number, address in enumerate(node_addresses, 1)]
        for host in [self.own, *self.nodes]:
            self._plug_in(host)

    def _plug_in(self, host):
        if host.name:
            run("ip", "netns", "add", host.name)
        host.ip("link", "add", "eth0", "type", "veth", "peer", "name", host.port, "netns", SWITCH)
        run("ip", "-n", SWITCH, "link", "set", host.port, "master", BRIDGE, "up")
        host.ip("link", "set", "lo", "up")
        for address in host.addresses:
            host.ip("address", "add", f"{address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")

    def silence(self, sender, addresses):
        """Drops everything that this host sends to these addresses."""
        for address in addresses:
            sender.ip("neigh", "replace", address, "lladdr", NO_STATION, "nud", "permanent", "dev", "eth0")

    def end_silence(self, sender, addresses):
        for address in addresses:
            sender.ip("neigh", "delete", address, "dev", "eth0")

    def cut(self, one, other):
        """Drops everything between two hosts."""
        self.silence(one, other.addresses)
        self.silence(other, one.addresses)

    def mend(self, one, other):
        self.end_silence(one, other.addresses)
        self.end_silence(other, one.addresses)

    async def slow(self, host, delay_secs, loss):
        """Delays everything that this host sends, and drops this share of its frames."""
        words = ["ip", "netns", "exec", SWITCH, sys.executable, CABLE, host.port, BRIDGE, delay_secs, loss]
        host.slow = await asyncio.create_subprocess_exec(*map(str, words), stdout=asyncio.subprocess.PIPE)
        await host.slow.stdout.readline()
        self._tc("qdisc", "add", "dev", host.port, "clsact")
        drop = ["bpf", "direct-action", "bytecode", DROP_ALL]
        self._tc("filter", "add", "dev", host.port, "ingress", *drop)

    async def end_slow(self, host):
        host.slow.kill()
        await host.slow.wait()
        host.slow = None
        self._tc("qdisc", "delete", "dev", host.port, "clsact")

    def _tc(self, *words):
        run("ip", "netns", "exec", SWITCH, "tc", *words)
