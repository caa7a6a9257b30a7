"""Figures of the programs and the traffic over time: memory, descriptors, CPU time, message rates."""

import asyncio
import time

from findings import NEVER

MIB = 1 << 20
# The first quarter of a life of a program is its warm-up. Growth is judged only if this many seconds follow it.
JUDGED_SECS_MIN = 45
GROWTH_BYTES_MAX = 16 * MIB
GROWTH_SHARE_MAX = 0.3
RSS_BYTES_MAX = 512 * MIB
# After the warm-up, the smallest number of descriptors in the last third may exceed the largest in the first half by this.
GROWTH_DESCRIPTORS_MAX = 60


class Samples:
    """Samples of one run, taken every `every_secs` seconds. Times are those of time.monotonic()."""

    def __init__(self, system, traffic, every_secs):
        self.system, self.traffic, self.every_secs = system, traffic, every_secs
        # For each program: (time, life, RSS, descriptors, CPU seconds of this life).
        self.programs = {program.name: [] for program in system.programs()}
        # (time, published, received, slowest PONG in seconds).
        self.traffic_samples = []

    async def take_forever(self):
        while True:
            self.take()
            await asyncio.sleep(self.every_secs)

    def take(self):
        now = time.monotonic()
        for program in self.system.programs():
            if program.is_running():
                figures = (program.rss_bytes(), program.descriptors(), program.cpu_secs())
                self.programs[program.name].append((now, program.lives, *figures))
        slowest = 0.0
        for client in self.traffic.clients():
            slowest = max(slowest, client.slowest_pong, client.oldest_ping_age())
            client.slowest_pong = 0.0
        self.traffic_samples.append((now, self.traffic.published, self.traffic.received, slowest))

    def judge(self, findings):
        for name, samples in self.programs.items():
            for life in {sample[1] for sample in samples}:
                judge_life(f"{name} (life {life})", [sample for sample in samples if sample[1] == life], findings)


def judge_life(name, samples, findings):
    """Adds a finding if memory or descriptors of one process grow without end."""
    largest = max(sample[2] for sample in samples)
    if largest > RSS_BYTES_MAX:
        findings.add("memory", f"{name} used {largest / MIB:.0f} MiB, more than {RSS_BYTES_MAX / MIB:.0f}", NEVER)
    begun, ended = samples[0][0], samples[-1][0]
    warm = begun + (ended - begun) / 4
    if ended - warm < JUDGED_SECS_MIN:
        return
    part = lambda low, high, column: [
        sample[column] for sample in samples if low <= (sample[0] - warm) / (ended - warm) <= high
    ]
    before, after = _mean(part(0, 0.33, 2)), _mean(part(0.67, 1, 2))
    if after - before > max(GROWTH_BYTES_MAX, GROWTH_SHARE_MAX * before):
        findings.add("memory", f"{name} grew from {before / MIB:.1f} to {after / MIB:.1f} MiB after its warm-up", NEVER)
    before, after = max(part(0, 0.5, 3)), min(part(0.67, 1, 3))
    if after - before > GROWTH_DESCRIPTORS_MAX:
        findings.add("descriptors", f"{name} had {before} descriptors at most, and then {after} at least", NEVER)


def _mean(values):
    return sum(values) / max(1, len(values))
