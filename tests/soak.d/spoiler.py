"""A relay that breaks one promise on purpose, between the raw clients and a sidecar."""

import asyncio
import json

from client import Door
from frames import Frames

READ_BYTES = 1 << 16


def encode(frame):
    """Returns the bytes of a frame that `Frames` has read."""
    verb = frame[0]
    if verb == "MSG":
        _, subject, sid, reply, header, payload = frame
        reply = reply + b" " if reply else b""
        sizes = b"%d %d" % (header, len(payload)) if header else b"%d" % len(payload)
        return b"%s %s %d %s%s\r\n%s\r\n" % (b"HMSG" if header else b"MSG", subject, sid, reply, sizes, payload)
    if verb == "INFO":
        return b"INFO " + frame[1] + b"\r\n"
    return verb.encode() + (b" " + frame[1].encode() if len(frame) > 1 else b"") + b"\r\n"


class Passage:
    """One connection through the spoiler. `name` is that of the client, as its CONNECT says."""

    def __init__(self, spoiler):
        self.spoiler = spoiler
        self.name = ""
        # A frame that a spoiler holds back.
        self.held = None

    async def to_node(self, reader, writer):
        while data := await reader.read(READ_BYTES):
            if data.startswith(b"CONNECT "):
                self.name = json.loads(data[8 : data.index(b"\r\n")])["name"]
                data = self.spoiler.connect(data)
            writer.write(data)
        writer.close()

    async def to_component(self, reader, writer):
        frames = Frames()
        while data := await reader.read(READ_BYTES):
            for frame in frames.feed(data):
                spoiled = self.spoiler.frame(self, frame)
                if spoiled is None:
                    writer.close()
                if writer.is_closing():
                    return
                writer.write(spoiled)
        writer.close()


class Spoiler:
    """Listens before the listener `door`, and does the harm of `plant` once."""

    def __init__(self, door, plant):
        self.door, self.plant = door, plant
        self.picked = 0
        self.server = None
        # The sockets of both sides of each connection.
        self.writers = []

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = self.server.sockets[0].getsockname()
        return Door(self.door.name, address, self.door.login, shown=self.door.address)

    async def _serve(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection(*self.door.address)
        self.writers += [writer, far_writer]
        passage = Passage(self)
        ways = [passage.to_node(reader, far_writer), passage.to_component(far_reader, writer)]
        # Each way ends by itself; the return value tells of resets, which the clients cause when they close.
        await asyncio.gather(*ways, return_exceptions=True)
        far_writer.close()

    def connect(self, data):
        return self.plant.connect(data)

    def frame(self, passage, frame):
        """Returns the bytes to send in place of a frame, or None to close the connection."""
        plain = encode(frame)
        if passage.held:
            held, passage.held = self.plant.release(passage.held, frame)
            plain += held
        if self.plant.picks(passage.name, frame):
            self.picked += 1
            if self.picked == self.plant.nth:
                return self.plant.harm(passage, frame, plain)
        return plain

    def stop(self):
        self.server.close()
        for writer in self.writers:
            writer.close()
