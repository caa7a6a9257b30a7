"""Every fault that a run can make, and which findings it explains.

A fault is a coroutine that does the harm and ends it. After it, the run waits until the system is whole again. The time from the
beginning of the harm to that moment is the window of the fault.
"""

import asyncio
import signal
import time
from dataclasses import dataclass, field

from findings import CLOSED, LATE, MISSING
from system import NODES

# A window covers this time before it too: messages published then may still be on their way when the harm begins.
ON_THE_WAY_SECS = 0.5
# Time for the sidecars to see that a killed node has gone. They see the end of its connections at once.
NOTICED_SECS_MAX = 0.5


@dataclass
class Window:
    """One fault that happened. Times are those of time.monotonic()."""

    fault: str
    explains: frozenset
    detail: str = ""
    # The sidecar that was harmed. None: the harm was elsewhere, and can reach all components.
    sidecar: str | None = None
    start: float = 0.0
    # The end of the harm, and the moment at which the system was whole again.
    healed: float = 0.0
    end: float = 0.0
    # The time in which no node ran, and all sidecars knew it: they hold what is published then.
    held: tuple | None = None
    # Sessions that moved to another node meanwhile.
    moved: int = 0
    explained: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.fault:16} {self.detail}; {self.moved} moved, whole again {self.end - self.healed:.1f} s after the harm"

    def covers(self, finding):
        """Returns whether this fault explains a finding."""
        if finding.kind not in self.explains or (self.sidecar and self.sidecar not in finding.sidecars):
            return False
        return self.start - ON_THE_WAY_SECS <= finding.at and finding.until <= self.end


class Fault:
    """A kind of fault: its name, the findings that it explains, whether it makes sessions move, and the coroutine."""

    def __init__(self, name, explains, moves, harm):
        self.name, self.explains, self.moves, self.harm = name, frozenset(explains), moves, harm


ALL = {}


def fault(name, *explains, moves=False):
    """Adds a coroutine to the list of faults. It gets the system, the random choices, the window, and a scale for its times."""

    def add(harm):
        ALL[name] = Fault(name, explains, moves, harm)
        return harm

    return add


@fault("kill-node", MISSING, moves=True)
async def kill_node(system, choice, window, scale):
    node = choice.choice(system.nodes)
    window.detail = node.name
    await node.kill()
    await asyncio.sleep(choice.uniform(0.2, 3 * scale))
    node.start()


@fault("freeze-node", MISSING, LATE, moves=True)
async def freeze_node(system, choice, window, scale):
    node = choice.choice(system.nodes)
    secs = choice.uniform(2.2, 2.2 + 5 * scale)
    window.detail = f"{node.name} for {secs:.1f} s"
    node.freeze()
    await asyncio.sleep(secs)
    node.thaw()


@fault("outage", MISSING, moves=True)
async def outage(system, choice, window, scale):
    """All nodes die at once. Components stay connected."""
    secs = choice.uniform(1, 1 + 8 * scale)
    window.detail = f"all nodes for {secs:.1f} s"
    await asyncio.gather(*(node.kill() for node in system.nodes))
    noticed = time.monotonic() + NOTICED_SECS_MAX
    await asyncio.sleep(secs)
    window.held = (noticed, time.monotonic())
    for node in system.nodes:
        node.start()


@fault("cut-node", MISSING, LATE, moves=True)
async def cut_node(system, choice, window, scale):
    """A node's host loses its cable: nobody hears it, and no connection is reset."""
    network, number = system.network, choice.randrange(NODES)
    secs = choice.uniform(2.2, 2.2 + 6 * scale)
    window.detail = f"{system.nodes[number].name} for {secs:.1f} s"
    own = network.nodes[number]
    others = [host for host in [network.own, *network.nodes] if host is not own]
    for other in others:
        network.cut(own, other)
    await asyncio.sleep(secs)
    for other in others:
        network.mend(own, other)


@fault("cut-link", MISSING, LATE)
async def cut_link(system, choice, window, scale):
    """Two nodes do not hear each other, or only one way; the components hear both."""
    one, other = choice.sample(range(NODES), 2)
    both, secs = choice.random() < 0.5, choice.uniform(2.2, 2.2 + 6 * scale)
    window.detail = f"{system.nodes[one].name} {'and' if both else 'to'} {system.nodes[other].name} for {secs:.1f} s"
    one, other = system.network.nodes[one], system.network.nodes[other]
    system.network.silence(one, other.addresses)
    if both:
        system.network.silence(other, one.addresses)
    await asyncio.sleep(secs)
    system.network.end_silence(one, other.addresses)
    if both:
        system.network.end_silence(other, one.addresses)


@fault("slow-link")
async def slow_link(system, choice, window, scale):
    number, delay = choice.randrange(NODES), choice.uniform(0.01, 0.08)
    secs = choice.uniform(1, 1 + 8 * scale)
    window.detail = f"{system.nodes[number].name} by {1000 * delay:.0f} ms for {secs:.1f} s"
    host = system.network.nodes[number]
    await system.network.slow(host, delay, 0)
    await asyncio.sleep(secs)
    await system.network.end_slow(host)


@fault("lossy-link", MISSING, LATE)
async def lossy_link(system, choice, window, scale):
    number, loss = choice.randrange(NODES), choice.uniform(0.01, 0.05)
    secs = choice.uniform(1, 1 + 8 * scale)
    window.detail = f"{system.nodes[number].name} loses {100 * loss:.0f} % of its frames for {secs:.1f} s"
    host = system.network.nodes[number]
    await system.network.slow(host, 0.005, loss)
    await asyncio.sleep(secs)
    await system.network.end_slow(host)


@fault("clock-jump")
async def clock_jump(system, choice, window, scale):
    """The wall clock of one node and one sidecar jumps, and jumps back."""
    offset = choice.choice([-1, 1]) * choice.randrange(60, 100_000)
    window.detail = f"by {offset} s"
    system.set_clock(offset)
    await asyncio.sleep(choice.uniform(1.5, 1.5 + 4 * scale))
    system.set_clock(0)
    await asyncio.sleep(1)


@fault("disk-full", MISSING, moves=True)
async def disk_full(system, choice, window, scale):
    """The disk with the caches of the sidecars and the log of one node is full. A node dies, so the caches cannot be updated."""
    node = choice.choice(system.nodes)
    window.detail = f"and kill of {node.name}"
    filler = system.disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass  # no space left: as wanted
    await node.kill()
    await asyncio.sleep(choice.uniform(0.5, 0.5 + 3 * scale))
    node.start()
    await asyncio.sleep(0.5)
    filler.unlink()


@fault("zookeeper-one")
async def zookeeper_one(system, choice, window, scale):
    server = choice.choice(system.ensemble.servers)
    window.detail = server.name
    await server.kill()
    await asyncio.sleep(choice.uniform(0.5, 0.5 + 8 * scale))
    server.start()


@fault("zookeeper-all", MISSING, moves=True)
async def zookeeper_all(system, choice, window, scale):
    """All of ZooKeeper dies, and a node too: the sidecars have only the nodes that they know already."""
    node = choice.choice(system.nodes)
    secs = choice.uniform(1, 1 + 12 * scale)
    window.detail = f"for {secs:.1f} s, and kill of {node.name}"
    await asyncio.gather(*(server.kill() for server in system.ensemble.servers))
    await asyncio.sleep(secs / 2)
    await node.kill()
    await asyncio.sleep(secs / 2)
    for server in system.ensemble.servers:
        server.start()
    # A node that starts without ZooKeeper waits for it, which takes seconds. Short runs mostly start it after ZooKeeper.
    if choice.random() > scale:
        await system.wait_for(system.ensemble.trouble, 60)
    node.start()


@fault("zookeeper-frozen")
async def zookeeper_frozen(system, choice, window, scale):
    secs = choice.uniform(1, 1 + 12 * scale)
    window.detail = f"for {secs:.1f} s"
    for server in system.ensemble.servers:
        server.freeze()
    await asyncio.sleep(secs)
    for server in system.ensemble.servers:
        server.thaw()


@fault("session-expiry")
async def session_expiry(system, choice, window, scale):
    """ZooKeeper hears nothing from a node for longer than the session timeout, so the node's record goes. Its clients and routes
    stay."""
    number = choice.randrange(NODES)
    window.detail = system.nodes[number].name
    host, zookeeper = system.network.nodes[number], system.ensemble.addresses
    # Only what the node sends is dropped. ZooKeeper is on the host of the components, so the other direction is theirs too.
    system.network.silence(host, zookeeper)
    await asyncio.sleep(5.5 + choice.uniform(0, 4 * scale))
    system.network.end_silence(host, zookeeper)


@fault("upgrade", moves=True)
async def upgrade(system, choice, window, scale):
    """Each node in turn leaves by lame duck mode, and a new process takes its place."""
    order = choice.sample(system.nodes, NODES)
    window.detail = ", ".join(node.name for node in order)
    for node in order:
        code = await node.stop(signal.SIGUSR2)
        if code != 0:
            raise RuntimeError(f"{node.name} ended with {code} after SIGUSR2")
        node.start()
        await system.until_whole()


@fault("restart-sidecar", MISSING, CLOSED)
async def restart_sidecar(system, choice, window, scale):
    sidecar = choice.choice(system.sidecars)
    graceful = choice.random() < 0.5
    window.detail, window.sidecar = f"{sidecar.name} by {'SIGTERM' if graceful else 'SIGKILL'}", sidecar.name
    if graceful:
        await sidecar.stop()
    else:
        await sidecar.kill()
    await asyncio.sleep(choice.uniform(0.1, 0.1 + 2 * scale))
    sidecar.start()
    await system.wait_for(lambda: sidecar.trouble(0), 20)
    await system.restarted(sidecar)


@fault("reload")
async def reload(system, choice, window, scale):
    """All programs read their settings again, several times."""
    for _ in range(3):
        for program in system.programs():
            program.send(signal.SIGHUP)
        await asyncio.sleep(0.2)


async def happen(kind, system, choice, scale, windows):
    """Makes one fault, waits until the system is whole, and returns its window, which it has added to the others."""
    moved = await system.sessions_moved()
    window = Window(kind.name, kind.explains, start=time.monotonic())
    windows.append(window)
    try:
        await kind.harm(system, choice, window, scale)
        window.healed = time.monotonic()
        await system.until_whole()
        # A restarted sidecar counts from 0.
        window.moved = max(0, await system.sessions_moved() - moved)
        if kind.moves and not window.moved:
            raise RuntimeError("no session moved, so this fault did no harm")
    finally:
        window.end = time.monotonic()
        window.healed = window.healed or window.end
    return window
