"""Processes under measurement: start, wait, CPU time, memory, end."""

import contextlib
import ctypes
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
LISTEN_SECONDS_MAX = 20
# Between the ports of the end-to-end tests (tests/src/port.rs) and those of the kernel for outgoing connections.
PORTS = range(30_500, 32_700)
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_ports = itertools.islice(itertools.cycle(PORTS), random.randrange(len(PORTS)), None)


def free_port():
    """Returns a free port that the kernel does not use for outgoing connections and that was not returned recently."""
    for _ in range(len(PORTS)):
        port = next(_ports)
        with socket.socket() as chosen:
            try:
                chosen.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass  # in use, or in TIME_WAIT
    raise RuntimeError(f"no port of {PORTS.start}-{PORTS.stop - 1} is free")


def until(what, condition, seconds_max=LISTEN_SECONDS_MAX, every=0.01):
    """Waits for the condition, and returns its value. Fails after `seconds_max`."""
    deadline = time.monotonic() + seconds_max
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds_max} s: {what}")
        time.sleep(every)


def seconds_until(tests, started, seconds_max=60):
    """Returns for each test the seconds from `started` until it was first true. Fails after `seconds_max`."""
    seen = {}
    while len(seen) < len(tests):
        for number, test in enumerate(tests):
            if number not in seen and test():
                seen[number] = time.monotonic() - started
        if time.monotonic() > started + seconds_max:
            raise TimeoutError(f"not within {seconds_max} s: {len(tests) - len(seen)} of {len(tests)} tests")
        time.sleep(0.001)
    return [seen[number] for number in range(len(tests))]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Process:
    """One program. Its output goes to a file, and an error shows the last lines."""

    def __init__(self, folder, name, *command, port=None, env=None, stdin=None, stdout=None, wait=True):
        self.name, self.port = name, port
        self.log = folder / f"{name}.log"
        self.command = [str(word) for word in command]
        self.env, self.stdin, self.stdout = env, stdin, stdout
        self.start(wait)

    def start(self, wait=True):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=self.stdin or subprocess.DEVNULL,
                stdout=self.stdout or log,
                stderr=log,
                env={**os.environ, **(self.env or {})},
                # The kernel kills it when the script ends in any way.
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        if self.port and wait:
            self.listening()
        return self

    def listening(self):
        """Waits until the port accepts connections."""
        until(f"{self.name} listens on {self.port}", self._listens)

    def _listens(self):
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended during its start:\n{self.tail()}")
        return accepts(self.port)

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def signal(self, number):
        self.popen.send_signal(number)

    def kill(self):
        for pid in self._pids()[1:]:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def _pids(self):
        """Returns the ids of the program and its worker processes."""
        try:
            children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        except OSError:
            return [self.popen.pid]
        return [self.popen.pid, *map(int, children)]

    def cpu_ns(self):
        """Returns the CPU time of each thread so far, user and system, in nanoseconds. (`stat` has ticks of 10 ms only.)"""
        times = {}
        for pid in self._pids():
            for thread in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    times[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
                except OSError:
                    pass  # the thread has just ended
        return times

    def cpu_ns_since(self, before):
        return sum(now - before.get(thread, 0) for thread, now in self.cpu_ns().items())

    def rss_bytes(self):
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


def build(packages):
    """Builds the programs under measurement and the load generator."""
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    for words in (*(["-p", package] for package in packages), ["-p", "load", "--bins"]):
        subprocess.run(["cargo", "build", "-q", "--release", *words], cwd=ROOT, env=env, check=True)


def standin_proxy():
    return os.environ.get("STANDIN_PROXY_BIN", TARGET / "release/standin-proxy")


def standin_broker():
    return os.environ.get("STANDIN_BROKER_BIN", TARGET / "release/standin-broker")


def nats_server():
    return TARGET / "peers/python/bin/nats-server"


def load(*arguments):
    """Runs the load generator and returns its result."""
    command = [TARGET / "release/load", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"load {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Load(Process):
    """A load generator in the background."""

    def __init__(self, folder, *arguments):
        super().__init__(folder, "load", TARGET / "release/load", *arguments, stdout=subprocess.PIPE)

    def result(self):
        """Waits for the end, and returns the result."""
        out, _ = self.popen.communicate(timeout=120)
        if self.popen.returncode != 0:
            raise RuntimeError(f"the load generator failed:\n{self.tail()}")
        return json.loads(out)


class Crowd(Process):
    """A load generator that reads commands, such as `load idle`. `.ready` is its first line."""

    def __init__(self, folder, *arguments, program=(TARGET / "release/load",)):
        pipe = subprocess.PIPE
        super().__init__(folder, "load", *program, *arguments, stdin=pipe, stdout=pipe)
        self.ready = self.answer()

    def tell(self, command):
        self.popen.stdin.write(f"{command}\n".encode())
        self.popen.stdin.flush()

    def answer(self):
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"the load generator ended:\n{self.tail()}")
        return json.loads(line)

    def ask(self, command):
        self.tell(command)
        return self.answer()
