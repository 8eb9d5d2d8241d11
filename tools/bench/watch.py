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
    points, later, started = [], {}, time.perf_counter()
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            env=environment(changes)) as process:
        process.stdin.write(line + "\n")
        process.stdin.close()
        for text in process.stdout:
            seconds = time.perf_counter() - started
            if after and (found := after.search(text)):
                later[found.group(1)] = float(found.group(2))
            if not (found := pattern.search(text)):
                continue
            points.append({"epoch": found.group(1), "seconds": round(seconds, 2), "accuracy": float(found.group(2))})
            if until is not None and points[-1]["accuracy"] >= until:
                os.killpg(process.pid, signal.SIGTERM)
                process.stdout.read()
                process.wait()
                return points, later
        if process.wait():
            raise failure(next(word for word in command if word.endswith(".py")), process.returncode, errors)
    return points, later
