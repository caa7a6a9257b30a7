"""One run from the start of the system to the verdict."""

import asyncio
import random
import time

import faults
import judge
import planted
from findings import LATE, MISSING, Findings
from samples import Samples
from system import NODE_NETWORK, System
from traffic import Traffic

# At the beginning and at the end there is traffic without faults.
QUIET_SECS = 1.0
# Above this many minutes, times of faults and pauses between them are those of a long run.
LONG_MINUTES = 5
# Faults that lose nothing by themselves, so one of them may happen together with another fault. The two must not touch the same
# program or cable.
COMPANIONS = ["clock-jump", "zookeeper-one", "zookeeper-frozen", "slow-link"]
EXCLUDES = {"lossy-link": "slow", "session-expiry": "zookeeper"}
COMPANION_SHARE = 0.4
# With fewer sessions on a node, components are restarted before the next fault.
SESSIONS_MIN = 4


class Run:
    """All that happened in one run."""

    def __init__(self, minutes, seed, folder, binaries, only=None, rate=1.0):
        self.minutes, self.seed, self.folder, self.binaries, self.rate = minutes, seed, folder, binaries, rate
        self.choice = random.Random(seed)
        self.kinds = [kind for name, kind in faults.ALL.items() if not only or name in only]
        # Times of faults grow with the length of the run: a short one shows each fault once.
        self.scale = min(1.0, minutes / LONG_MINUTES)
        self.findings, self.windows, self.planted = Findings(), [], []
        self.versions = []
        self.start = self.end = 0.0
        self.traffic = self.samples = None

    async def carry_out(self, peers, say, test_checkers=True):
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        system = System(self.folder, self.binaries)
        try:
            self.versions = system.versions()
            say("starting three ZooKeeper servers, three nodes and three sidecars")
            await system.start()
            doors = [sidecar.door for sidecar in system.sidecars]
            if test_checkers:
                say("planting errors, which the checkers must find")
                self.planted = await planted.run(doors[0], NODE_NETWORK)
            self.traffic = Traffic("soak", doors, self.findings, self.rate, NODE_NETWORK)
            self.traffic.raw_clients()
            self.traffic.real_libraries(peers, self.folder / "libraries.log")
            system.restarted = self._restarted
            await self._soak(system, say)
        finally:
            await system.stop()

    async def _soak(self, system, say):
        self.start = time.monotonic()
        self.samples = Samples(system, self.traffic, every_secs=max(0.25, self.minutes / 10))
        before = [await sidecar.metrics() for sidecar in system.sidecars]
        await self.traffic.start()
        system.traffic_trouble = self.traffic.trouble
        say(f"sessions by node: {await system.sessions_by_node()}")
        sampling = asyncio.ensure_future(self.samples.take_forever())
        try:
            await self._faults(system, say)
            await asyncio.sleep(QUIET_SECS)
            await self.traffic.finish()
        finally:
            sampling.cancel()
            self.end = time.monotonic()
        judge.something_happened(self.findings, self.traffic)
        judge.explain(self.findings, self.windows)
        judge.outages(self.findings, self.windows, self.traffic)
        self.samples.judge(self.findings)
        await judge.metrics_while_connected(self.findings, system, self.traffic, before)
        await self.traffic.close()
        await judge.gone(self.findings, system)
        judge.programs(self.findings, system)

    async def _faults(self, system, say):
        """Makes every fault once in random order, and again until the time is over."""
        deadline = self.start + 60 * self.minutes
        round_of_kinds, first_round = [], True
        while round_of_kinds or first_round or time.monotonic() < deadline:
            if not round_of_kinds:
                round_of_kinds = self.choice.sample(self.kinds, len(self.kinds))
            kind = round_of_kinds.pop()
            await asyncio.sleep(QUIET_SECS / 4 + self.choice.uniform(0, 6 * self.scale))
            await self._spread(system)
            kinds = [kind] if first_round else [kind, *self._companion(kind)]
            happening = (faults.happen(one, system, self._choice(), self.scale, self.windows) for one in kinds)
            try:
                for window in await asyncio.gather(*happening):
                    say(f"{window.start - self.start:6.1f} s  {window}")
            except (TimeoutError, RuntimeError) as error:
                self.findings.add("programs", f"after {kind.name}: {error}")
                return
            first_round = first_round and bool(round_of_kinds)
            if not first_round and time.monotonic() >= deadline:
                return

    async def _spread(self, system):
        """Restarts the raw clients if one of the nodes has hardly any session. Sessions do not return to a node by themselves, and
        the death of a node without sessions would harm nobody."""
        if min(await system.sessions_by_node()) >= SESSIONS_MIN:
            return
        window = faults.Window("restart-components", frozenset([MISSING, LATE]), start=time.monotonic())
        self.windows.append(window)
        await asyncio.gather(*(client.reconnect() for client in self.traffic.clients()))
        await system.until_whole()
        window.healed = window.end = time.monotonic()
        window.detail = f"sessions by node: {await system.sessions_by_node()}"

    def _choice(self):
        """Returns a random generator for one fault. The choices of a fault must not depend on another one at the same time."""
        return random.Random(self.choice.random())

    def _companion(self, kind):
        """Returns a second fault for the same time, or none."""
        harmless = [
            faults.ALL[name] for name in COMPANIONS if name.split("-")[0] not in EXCLUDES.get(kind.name, kind.name)
        ]
        return [self.choice.choice(harmless)] if harmless and self.choice.random() < COMPANION_SHARE else []

    async def _restarted(self, sidecar):
        """Waits until all components of a restarted sidecar are connected again."""
        there = [role.client for role in self.traffic.roles] + self.traffic.libraries
        await asyncio.gather(*(one.connect_again() for one in there if one.door is sidecar.door))

    def _unexpected(self, _loop, context):
        error = context.get("exception")
        self.findings.add("programs", f"the harness: {context['message']}: {error!r}")
