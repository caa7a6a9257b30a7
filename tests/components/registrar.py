"""One ZooKeeper session of a test, which registers nodes or plays an operator.

Reads one JSON command per line and answers each with one JSON line. The end of the input closes the session. When the process is
killed, its ephemeral znodes stay until the session timeout, as after a power cut.
"""

import json
import logging
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

logging.basicConfig(level=logging.CRITICAL)
hosts, timeout_secs = sys.argv[1], float(sys.argv[2])
# With its default backoff the library reconnects to a restarted server only after the session has expired.
retry = {"max_tries": -1, "max_delay": 0.5}
client = KazooClient(hosts=hosts, timeout=timeout_secs, connection_retry=retry)


def put(path, data, ephemeral):
    """Creates the znode, with its parents, or sets its data."""
    raw = data.encode()
    if client.exists(path):
        client.set(path, raw)
    else:
        client.create(path, raw, ephemeral=ephemeral, makepath=True)


def put_bytes(path, hex, repeat):
    raw = bytes.fromhex(hex) * repeat
    if client.exists(path):
        client.set(path, raw)
    else:
        client.create(path, raw)


def put_many(path, count):
    """Registers many nodes at different loopback addresses, a thousand in each request."""
    for first in range(0, count, 1000):
        request = client.transaction()
        for number in range(first, min(first + 1000, count)):
            address = f"127.{1 + number // 65536}.{number // 256 % 256}.{number % 256}:9"
            record = {"v": 1, "id": f"id-{number}", "client": address, "mesh": address}
            request.create(f"{path}{number}", json.dumps(record).encode())
        failed = [result for result in request.commit() if isinstance(result, Exception)]
        if failed:
            raise failed[0]


def delete(path):
    try:
        client.delete(path, recursive=True)
    except NoNodeError:
        pass


def wipe():
    """Deletes every znode except ZooKeeper's own."""
    for child in client.get_children("/"):
        if child != "zookeeper":
            delete("/" + child)


def children(path):
    try:
        return sorted(client.get_children(path))
    except NoNodeError:
        return []


def get(path):
    try:
        return client.get(path)[0].decode()
    except NoNodeError:
        return None


commands = {
    "put": put,
    "put_bytes": put_bytes,
    "put_many": put_many,
    "delete": delete,
    "wipe": wipe,
    "children": children,
    "get": get,
}
client.start(timeout=30)
print(json.dumps({"ok": "started"}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = {"ok": commands[command.pop("do")](**command)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
client.stop()
client.close()
