"""One program of the system over all its lives: start, kill, freeze, signals, memory, descriptors, log."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

END_SECS_MAX = 20


class Program:
    """A program that is started with the same command each time. Its log has the output of all its lives."""

    def __init__(self, name, kind, host, command, log, env=None):
        self.name, self.kind, self.host, self.log = name, kind, host, log
        self.command = host.inside([str(word) for word in command])
        # The programs would take variables of the harness, such as STANDIN_PROXY_BIN, for settings.
        own = {key: value for key, value in os.environ.items() if not key.startswith("STANDIN_")}
        self.env = {**own, **(env or {})}
        self.popen = None
        self.lives = 0
        # True from the start until the harness itself ends the program.
        self.should_run = False

    def start(self):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd="/"
            )
        self.lives += 1
        self.should_run = True

    @property
    def pid(self):
        return self.popen.pid

    def is_running(self):
        return self.popen is not None and self.popen.poll() is None

    def exit_code(self):
        return self.popen.poll()

    def send(self, number):
        self.popen.send_signal(number)

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    async def kill(self):
        """Kills the program and waits until the kernel has closed its sockets."""
        self.should_run = False
        if self.is_running():
            self.popen.kill()
            await self.ended()

    async def stop(self, number=signal.SIGTERM, seconds_max=END_SECS_MAX):
        """Sends a signal that ends the program, and returns its exit code."""
        self.should_run = False
        self.send(number)
        return await self.ended(seconds_max)

    async def ended(self, seconds_max=END_SECS_MAX):
        deadline = time.monotonic() + seconds_max
        while self.is_running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} has not ended within {seconds_max} s")
            await asyncio.sleep(0.005)
        return self.popen.returncode

    def rss_bytes(self):
        for line in self._proc("status").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def descriptors(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def cpu_secs(self):
        """Returns the CPU time of all threads. (`stat` has ticks of 10 ms only.)"""
        spent = 0
        for thread in Path(f"/proc/{self.pid}/task").glob("*"):
            spent += int((self._proc(f"task/{thread.name}/schedstat") or "0").split()[0])
        return spent / 1e9

    def _proc(self, file):
        try:
            return Path(f"/proc/{self.pid}/{file}").read_text()
        except OSError:
            return ""  # it has just ended
