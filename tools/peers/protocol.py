"""What a measured process speaks. Standard library only: peers run it in environments of their own.

The first line of standard input is a JSON object, the set-up. Every further line names a step, which is then measured
and answered by one JSON line on standard output: ``{"seconds": ..., "faults": ..., "peak_mib": ..., facts of the
step}``.
"""
import json
import math
import os
import resource
import sys
import time
from pathlib import Path

CALIBRATIONS = 2        # calls of a step after which its number of repetitions stays


class Clock:
    """Names the parts of a step: ``clock.mark("forward")`` is what passed since the mark before.

    Args:
        wait: called before every look at the time; what a device needs to have finished its work.
    """

    def __init__(self, wait=lambda: None):
        self.parts, self._wait = {}, wait
        wait()
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """Add the seconds since the last mark to part ``name``."""
        self._wait()
        now = time.perf_counter()
        self.parts[name] = self.parts.get(name, 0.0) + now - self._last
        self._last = now


def peak_mib() -> float:
    """The most memory this process has had resident, MiB (``VmHWM`` of Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("/proc/self/status has no VmHWM line; the benchmark needs Linux")


def _measure(step, times: int) -> dict:
    """Run a step ``times`` times; seconds and parts are of one."""
    faults, started, parts, own = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter(), {}, {}
    for _ in range(times):
        own = step() or {}
        for name, seconds in own.get("parts", {}).items():
            parts[name] = parts.get(name, 0.0) + seconds / times
    measured = {"seconds": (time.perf_counter() - started) / times, **own}
    if parts:
        measured["parts"] = parts
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {**measured, "faults": faults // times, "peak_mib": peak_mib()}


class Channel:
    """The set-up, read from standard input, and the way back.

    Libraries print to standard output as they like, some when they are imported: from here on that goes to standard
    error, and answers have a channel of their own.
    """

    def __init__(self):
        self.setup = json.loads(sys.stdin.readline())
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def serve(self, steps: dict, facts: dict) -> None:
        """Answer until standard input ends; the set-up's ``min_seconds`` is about how long one measurement lasts.

        Args:
            steps: name to function of no arguments. It may return ``{"parts": {name: seconds}}`` and, where the seconds
                of the call are not what is measured, ``"seconds"``.
            facts: name of a step to what is added to its answers (images, parameters, ...).
        """
        enough = self.setup.get("min_seconds", 0.0)
        times, calls = dict.fromkeys(steps, 1), dict.fromkeys(steps, 0)
        for line in sys.stdin:
            name = line.strip()
            measured = _measure(steps[name], times[name])
            calls[name] += 1
            if calls[name] <= CALIBRATIONS and enough:
                times[name] = max(1, math.ceil(enough / max(measured["seconds"], 1e-6)))
            self._answers.write(json.dumps({**facts.get(name, {}), **measured}) + "\n")
            self._answers.flush()
