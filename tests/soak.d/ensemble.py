"""Three real ZooKeeper servers with an elected leader."""

import asyncio

from program import Program

JARS = ":".join(f"/usr/share/java/{jar}.jar" for jar in ("zookeeper", "slf4j-simple"))
# For a fast start and little memory.
JAVA = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", JARS]
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
CLIENT, QUORUM, ELECTION = 2181, 2888, 3888
ANSWER_SECS_MAX = 1


class Ensemble:
    """Servers at these addresses, all on one host."""

    def __init__(self, folder, host, addresses):
        self.addresses = addresses
        members = "".join(
            f"server.{number}={address}:{QUORUM}:{ELECTION}\n" for number, address in enumerate(addresses, 1)
        )
        self.servers = [self._describe(folder, host, number, members) for number in range(1, len(addresses) + 1)]

    def _describe(self, folder, host, number, members):
        own = folder / f"zookeeper-{number}"
        (own / "data").mkdir(parents=True)
        (own / "data" / "myid").write_text(str(number))
        settings = own / "zoo.cfg"
        settings.write_text(
            f"dataDir={own}/data\nclientPort={CLIENT}\nclientPortAddress={self.addresses[number - 1]}\ntickTime=500\n"
            "maxSessionTimeout=60000\nmaxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n"
            f"initLimit=20\nsyncLimit=4\ncnxTimeout=1000\n{members}"
        )
        name = f"zookeeper-{number}"
        return Program(name, "zookeeper", host, [*JAVA, MAIN, settings], folder / f"{name}.log")

    def hosts(self):
        """Returns the value of nodes.zookeeper."""
        return ",".join(f"{address}:{CLIENT}" for address in self.addresses)

    def start(self):
        for server in self.servers:
            server.start()

    async def trouble(self):
        """Returns what is not as it should be, or None."""
        modes = [await self._mode(address) for address in self.addresses]
        for server, mode in zip(self.servers, modes):
            if mode is None:
                return f"{server.name} does not serve"
        return None if modes.count("leader") == 1 else "ZooKeeper has no leader"

    async def _mode(self, address):
        try:
            return await asyncio.wait_for(self._ask(address), ANSWER_SECS_MAX)
        except (OSError, asyncio.TimeoutError):
            return None

    async def _ask(self, address):
        reader, writer = await asyncio.open_connection(address, CLIENT)
        try:
            writer.write(b"srvr")
            answer = (await reader.read(-1)).decode()
        finally:
            writer.close()
        modes = [line.removeprefix("Mode: ") for line in answer.splitlines() if line.startswith("Mode: ")]
        return modes[0] if modes else None
