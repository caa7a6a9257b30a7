"""A strict reader of the frames that a server sends: one byte that the protocol does not allow is an error."""

import re

# The longest line is that of INFO.
LINE_BYTES_MAX = 64 * 1024
MSG = re.compile(rb"MSG (\S+) (\d+) (?:(\S+) )?(\d+)")
HMSG = re.compile(rb"HMSG (\S+) (\d+) (?:(\S+) )?(\d+) (\d+)")
INFO = re.compile(rb"INFO (\{.*\}) ?")
ERR = re.compile(rb"-ERR ('.*')")
BARE = {b"PING", b"PONG", b"+OK"}


class NotAFrame(Exception):
    """Bytes that are no frame."""


class Frames:
    """Bytes received so far that are not a whole frame yet."""

    def __init__(self):
        self.bytes = b""

    def feed(self, received):
        """Returns the whole frames, each as a tuple that begins with its verb."""
        self.bytes += received
        frames, start = [], 0
        while (line_end := self.bytes.find(b"\r\n", start)) >= 0:
            line = self.bytes[start:line_end]
            frame, payload_bytes = self._read(line)
            if payload_bytes is None:
                frames.append(frame)
                start = line_end + 2
                continue
            payload_start = line_end + 2
            end = payload_start + payload_bytes
            if len(self.bytes) < end + 2:
                break
            if self.bytes[end : end + 2] != b"\r\n":
                raise NotAFrame(f"{line[:200]!r} is not followed by {payload_bytes} bytes and the end of a line")
            frames.append((*frame, self.bytes[payload_start:end]))
            start = end + 2
        self.bytes = self.bytes[start:]
        if b"\r\n" not in self.bytes and len(self.bytes) > LINE_BYTES_MAX:
            raise NotAFrame(f"a line of more than {LINE_BYTES_MAX} bytes: {self.bytes[:80]!r}")
        return frames

    def _read(self, line):
        """Returns the frame of a line, and the number of bytes of its payload or None."""
        if found := MSG.fullmatch(line):
            return ("MSG", found[1], int(found[2]), found[3], 0), int(found[4])
        if found := HMSG.fullmatch(line):
            header, whole = int(found[4]), int(found[5])
            if header <= whole:
                return ("MSG", found[1], int(found[2]), found[3], header), whole
        if line in BARE:
            return (line.decode(),), None
        if found := INFO.fullmatch(line):
            return ("INFO", found[1], len(line) + 2), None
        if found := ERR.fullmatch(line):
            return ("-ERR", found[1].decode(errors="replace")), None
        raise NotAFrame(f"no frame of a server: {line[:200]!r}")
