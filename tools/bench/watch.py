"""A command that is run while its lines are read, with the seconds since before its process began."""
import os
import re
import signal
import subprocess
import tempfile
import time
from typing import Optional, Sequence

from bench.turns import environment, failure


def watch(command: Sequence[str], pattern: re.Pattern, *, line: str = "", changes: Optional[dict] = None,
          until: Optional[float] = None, after: Optional[re.Pattern] = None) -> tuple:
    """Run a command and note when it prints an accuracy; ``(points, accuracies by epoch of lines like ``after``)``.

    Args:
        command: a script in Python, run in a group of processes of its own.
        pattern: of the lines: an epoch and an accuracy.
        line: its standard input.
        changes: of its environment.
        until: an accuracy at which it is ended.
        after: of lines that come when the clock has stopped.
    Raises:
        ChildFailed: it ended with another code than 0.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                              start_new_session=True, env=environment(changes)) as process:
            try:
                points, later = _read(process, started, line, pattern, after, until)
            finally:
                if process.poll() is None:          # it arrived, or we were interrupted
                    os.killpg(process.pid, signal.SIGTERM)
                    process.stdout.read()
        if process.returncode and not _arrived(points, until):
            raise failure(next(word for word in command if word.endswith(".py")), process.returncode, errors)
    return points, later


def _arrived(points: list, until: Optional[float]) -> bool:
    return until is not None and bool(points) and points[-1]["accuracy"] >= until


def _read(process: subprocess.Popen, started: float, line: str, pattern: re.Pattern, after: Optional[re.Pattern],
          until: Optional[float]) -> tuple:
    points, later = [], {}
    try:
        process.stdin.write(line + "\n")
        process.stdin.close()
    except BrokenPipeError:             # it ended before it read: its exit code says so
        process.wait()
    for text in process.stdout:
        seconds = time.perf_counter() - started
        if after and (found := after.search(text)):
            later[found.group(1)] = float(found.group(2))
        if found := pattern.search(text):
            points.append({"epoch": found.group(1), "seconds": round(seconds, 2), "accuracy": float(found.group(2))})
            if _arrived(points, until):
                return points, later
    process.wait()
    return points, later
