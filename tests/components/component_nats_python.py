"""The Python component around nats-python 0.8.0, a library with one thread, one address and no reconnects.

The library's wait() blocks, and its ping() fails when a message arrives before the PONG. So this program polls commands and the
socket in one loop, and reads each frame with the library's own reader.
"""

import queue
import select
import sys
import threading
import time
import warnings

warnings.filterwarnings("ignore")
from pynats import client as lib  # noqa: E402

out = sys.stdout
subscriptions = {}
connection = None


def say(*words):
    out.write(" ".join(str(word) for word in words) + "\n")
    out.flush()


def read_frame():
    """Reads one frame as the library's wait() does, and also accepts a PONG."""
    command, result = connection._recv(lib.MSG_RE, lib.PING_RE, lib.OK_RE, lib.PONG_RE)
    if command is lib.MSG_RE:
        connection._handle_message(result)
    elif command is lib.PING_RE:
        connection._send(lib.PONG_OP)
    elif command is lib.PONG_RE:
        say("flushed")


def connect(url):
    global connection
    connection = lib.NATSClient(url=url)
    connection.connect()
    say("connected")


def sub(name, subject, group=""):
    def callback(message):
        say("msg", name, message.subject, message.payload.decode())

    subscriptions[name] = connection.subscribe(subject, callback=callback, queue=group)


def unsub(name, most=None):
    subscription = subscriptions[name]
    if most is None:
        connection.unsubscribe(subscription)
    else:
        subscription.max_messages = int(most)
        connection.auto_unsubscribe(subscription)


def answer(subject, prefix):
    def callback(message):
        connection.publish(message.reply, payload=prefix.encode() + message.payload)

    connection.subscribe(subject, callback=callback)


def pub(subject, payload):
    connection.publish(subject, payload=payload.encode())


def request(subject, payload):
    say("reply", connection.request(subject, payload=payload.encode()).payload.decode())


def flush():
    connection._send(lib.PING_OP)


class Burst:
    """Publishes at a rate, a few at a time between frames."""

    def __init__(self, subject, prefix, count, rate):
        self.subject, self.prefix, self.count, self.rate = subject, prefix, int(count), float(rate)
        self.start, self.sent = time.monotonic(), 0

    def go_on(self):
        due = min(self.count, int((time.monotonic() - self.start) * self.rate) + 1)
        while self.sent < due:
            self.sent += 1
            pub(self.subject, f"{self.prefix}{self.sent}")
        if self.sent == self.count:
            say("burst-done", self.count)
            return False
        return True


def close():
    global connection
    connection.close()
    connection = None
    say("closed")


def main():
    commands, bursts = queue.Queue(), []
    threading.Thread(target=feed, args=(commands,), daemon=True).start()
    while True:
        try:
            line = commands.get(timeout=0.05) if connection is None else commands.get_nowait()
            if line is None:
                return
            command, *words = line.split()
            if command == "burst":
                bursts.append(Burst(*words))
            else:
                globals()[command](*words)
        except queue.Empty:
            pass
        bursts[:] = [burst for burst in bursts if burst.go_on()]
        while connection is not None and readable():
            read_frame()


def feed(commands):
    for line in sys.stdin:
        commands.put(line)
    commands.put(None)


def readable():
    """Returns whether the library can read a frame now, from its own buffer or from the socket."""
    connection._socket.setblocking(False)
    try:
        buffered = connection._socket_file.peek(1)
    finally:
        connection._socket.setblocking(True)
    if buffered == b"" and select.select([connection._socket], [], [], 0.002)[0]:
        return True
    return buffered != b""


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # in a real component it would end the program
        say("error", type(error).__name__, error)
