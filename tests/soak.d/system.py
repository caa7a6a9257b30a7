"""The system under test: three ZooKeeper servers, three nodes on hosts of their own, and three sidecars beside the components."""

import asyncio
import glob
import os
import subprocess
import time
from pathlib import Path

import pages
from ensemble import Ensemble
from network import Network, run
from node import Node
from sidecar import Sidecar

NODES = 3
SIDECARS = 3
LOGIN = {"user": "soak", "pass": "a-password"}
NODE_NETWORK = "10.79.0."
NODE_ADDRESSES = [f"{NODE_NETWORK}{number}" for number in range(1, NODES + 1)]
OWN_ADDRESS = f"{NODE_NETWORK}10"
ZOOKEEPER_ADDRESSES = [f"{NODE_NETWORK}{number}" for number in (11, 12, 13)]
START_SECS_MAX = 90
# Files that the disk-full fault reaches: the caches of the sidecars, and the log of one node.
SMALL_DISK = "small-disk"
SMALL_DISK_BYTES = 4 << 20
# Programs whose clock can jump.
NODE_WITH_CLOCK, SIDECAR_WITH_CLOCK = 1, 2
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class System:
    """All programs, and the waits for their state."""

    def __init__(self, folder, binaries):
        self.folder, self.binaries = folder, binaries
        # A function that returns which messages do not arrive, or None. It is set when there is traffic.
        self.traffic_trouble = None
        # Called when a sidecar was started again: waits for its components.
        self.restarted = None
        self.network = Network([OWN_ADDRESS, *ZOOKEEPER_ADDRESSES], NODE_ADDRESSES)
        self.ensemble = Ensemble(folder, self.network.own, ZOOKEEPER_ADDRESSES)
        self.disk = folder / SMALL_DISK
        self.disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "small", self.disk)
        self.clock = folder / "clock"
        self.set_clock(0)
        zookeeper = self.ensemble.hosts()
        self.nodes = [
            Node(
                folder, number, host, binaries["standin-broker"], zookeeper, LOGIN,
                log_file=self.disk / "node-2.log" if number == 2 else None,
                env=self._clock_env(number == NODE_WITH_CLOCK),
            )
            for number, host in enumerate(self.network.nodes)
        ]  # fmt: skip
        self.sidecars = [
            Sidecar(
                folder, number, self.network.own, binaries["standin-proxy"], zookeeper, LOGIN,
                cache_file=self.disk / f"nodes-{number}.json",
                holds_login=number == 2,
                env=self._clock_env(number == SIDECAR_WITH_CLOCK),
            )
            for number in range(SIDECARS)
        ]  # fmt: skip

    def programs(self):
        return [*self.nodes, *self.sidecars]

    def _clock_env(self, wanted):
        library = glob.glob(FAKETIME)
        if not wanted or not library:
            return None
        return {
            "LD_PRELOAD": library[0],
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def can_change_clock(self):
        return bool(glob.glob(FAKETIME))

    def set_clock(self, offset_secs):
        """Sets the wall clock of the programs whose clock can jump, relative to the right time."""
        self.clock.write_text(f"{offset_secs:+d}\n")

    async def start(self):
        self.ensemble.start()
        await self.wait_for(self.ensemble.trouble, START_SECS_MAX)
        for program in self.programs():
            program.start()
        await self.until_whole(START_SECS_MAX)

    async def until_whole(self, seconds_max=60):
        """Waits until all programs run and know each other, each session has a node, and every subscription gets its messages."""
        await self.wait_for(self.trouble, seconds_max)

    async def trouble(self):
        if trouble := await self.ensemble.trouble():
            return trouble
        checks = [node.trouble(NODES - 1) for node in self.nodes]
        checks += [sidecar.trouble(NODES) for sidecar in self.sidecars]
        if self.traffic_trouble:
            checks.append(self.traffic_trouble())
        return next(filter(None, await asyncio.gather(*checks)), None)

    async def wait_for(self, trouble, seconds_max):
        deadline = time.monotonic() + seconds_max
        while what := await trouble():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds_max} s: {what}")
            await asyncio.sleep(0.05)

    async def sessions_moved(self):
        """Returns how many sessions all sidecars have moved since they started."""
        values = await asyncio.gather(*(sidecar.metrics() for sidecar in self.sidecars))
        return int(sum(pages.total(some, "standin_failovers_total") for some in values))

    async def sessions_by_node(self):
        """Returns the number of sessions on each node."""
        rows = [row for sidecar in self.sidecars for row in await sidecar.sessions()]
        return [sum((row.get("node") or "").startswith(f"{node.address}:") for row in rows) for node in self.nodes]

    def versions(self):
        found = []
        for binary in self.binaries.values():
            found.append(
                subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
            )
        return found

    async def stop(self):
        for program in [*self.programs(), *self.ensemble.servers]:
            await program.kill()


def binaries(target):
    """Returns the programs under test: STANDIN_PROXY_BIN and STANDIN_BROKER_BIN, or those built in the target folder."""
    found = {}
    for name, variable in (("standin-proxy", "STANDIN_PROXY_BIN"), ("standin-broker", "STANDIN_BROKER_BIN")):
        built = [target / profile / name for profile in ("release", "debug")]
        candidates = [Path(os.environ[variable])] if os.environ.get(variable) else built
        program = next((path for path in candidates if path.is_file()), None)
        if program is None:
            raise FileNotFoundError(f"no {name} in {target}: cargo build --release -p {name}, or set {variable}")
        found[name] = program.resolve()
    return found
