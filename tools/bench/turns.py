"""Two sides that take turns: processes that measure one step when asked, rows of answers, ratios of neighbours.

What a machine does beside the measurement changes from minute to minute. So no time is compared with one of another
minute: the sides take turns, and a ratio is that of two neighbouring steps. Printed are median and range.
"""
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
OURS, PEERS = ROOT / "tools" / "bench" / "ours.py", ROOT / "tools" / "peers"
WARM_UP, LEAST_WARM_UP = 4, 2               # rounds before the measurement, at most and at least: see take_turns
LONG = 5.0                                  # seconds of a step whose first round is warm-up enough
SETTLED = 0.05                              # page faults of a step against those of the first one: memory is there
ANSWER = 7200                               # seconds until a process must answer: PyTorch compiles for many minutes
PAUSE = 0.25                                # seconds between two processes: OpenMP's idle threads spin for 0.2 s
# What would reach a child from this process, where importing passl_mixer set the CPU up, or from the caller's shell.
STRIPPED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PASSL_MIXER_TUNE")


class ChildFailed(RuntimeError):
    """A measured process ended; the message holds the end of what it printed."""


def environment(changes: Optional[dict] = None) -> dict:
    """The variables of a measured process: ours without thread counts and tuning, and ``changes``."""
    clean = {key: value for key, value in os.environ.items() if key not in STRIPPED}
    return {**clean, "GLOG_minloglevel": "2", **(changes or {})}


class Child:
    """A process that measures a step when asked; see ``tools/peers/protocol.py``.

    Args:
        script: file it runs.
        setup: its set-up, JSON.
        python: its interpreter.
        changes: variables beside those of ``environment``.
    """

    def __init__(self, script: Path, setup: dict, *, python: str = sys.executable, changes: Optional[dict] = None):
        self.script, self._errors = script, tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(script)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env=environment(changes))
        self.send(json.dumps(setup))

    def send(self, line: str) -> None:
        """Write one line."""
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def receive(self) -> dict:
        """The next answer: an object, or a bare number of seconds."""
        if not select.select([self.process.stdout], [], [], ANSWER)[0]:
            self.process.kill()
            raise ChildFailed(f"{self.script.name} did not answer within {ANSWER} s, its compiling included")
        line = self.process.stdout.readline()
        if not line:
            raise self._failure()
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {"seconds": float(answer)}

    def step(self, name: str = "step") -> dict:
        """Measure step ``name`` once."""
        self.send(name)
        return self.receive()

    def _failure(self) -> ChildFailed:
        self.process.wait()
        return failure(self.script.name, self.process.returncode, self._errors)

    def close(self) -> None:
        """End the process, which ends at the end of its input."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def failure(name: str, code: int, errors) -> ChildFailed:
    """What to raise when a process ended.

    Args:
        name: of its script.
        code: it ended with.
        errors: the file that its standard error went to.
    """
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().splitlines()[-15:]
    return ChildFailed(f"{name} ended with code {code}:\n" + "\n".join(last))


def together(children: Sequence[Child], name: str) -> dict:
    """One step of several processes at once: the slowest one's answer, with the memory and images of all."""
    for child in children:
        child.send(name)
    answers = [child.receive() for child in children]
    slowest = max(answers, key=lambda answer: answer["seconds"])
    return {**slowest, "images": sum(a["images"] for a in answers), "peak_mib": sum(a["peak_mib"] for a in answers)}


def take_turns(sides: Sequence[Callable[[], dict]], repeats: int, *, pause: float = PAUSE) -> list:
    """Rows of answers, one per side, of ``repeats`` rounds after the warm-up.

    The warm-up ends when no side asks for new memory any more, or after its fourth round; after the first one where a
    step takes long, which has then met every page and made the optimiser's state.

    Args:
        sides: functions that measure one step.
        repeats: rounds measured.
        pause: seconds before each measurement; 0 where all sides are one process.
    """
    def one_round():
        answers = []
        for side in sides:
            time.sleep(pause)
            answers.append(side())
        return answers

    first = last = one_round()
    done = 1
    while done < WARM_UP and not (_long(last) or (done >= LEAST_WARM_UP and _settled(first, last))):
        last = one_round()
        done += 1
    return [one_round() for _ in range(repeats)]


def _long(answers: Sequence[dict]) -> bool:
    return max(answer["seconds"] for answer in answers) >= LONG


def _settled(first: Sequence[dict], last: Sequence[dict]) -> bool:
    """Whether no side asks for new memory any more."""
    return all("faults" in a and a["faults"] <= SETTLED * b["faults"] + 100 for a, b in zip(last, first))


def spread(values: Sequence[float]) -> dict:
    """Median and range, to four significant digits."""
    return {key: float(f"{value:.4g}") for key, value in
            (("median", statistics.median(values)), ("min", min(values)), ("max", max(values)))}


def summary(answers: Sequence[dict]) -> dict:
    """One side's record: medians of times, the most memory, and the facts of its answers."""
    seconds = statistics.median(a["seconds"] for a in answers)
    facts = {k: v for k, v in answers[-1].items() if k not in ("seconds", "parts", "faults", "peak_mib", "flop")}
    found = {"seconds": float(f"{seconds:.4g}"), **facts}
    if "images" in facts:
        found["images_per_second"] = float(f"{facts['images'] / seconds:.4g}")
    if "flop" in answers[-1]:
        found["gflops"] = float(f"{answers[-1]['flop'] / seconds / 1e9:.4g}")
    if "parts" in answers[-1]:
        found["parts"] = {k: float(f"{statistics.median(a['parts'][k] for a in answers):.3g}")
                          for k in answers[-1]["parts"]}
    if "peak_mib" in answers[-1]:
        found["peak_mib"] = max(a["peak_mib"] for a in answers)
    return found


def speed(ours: dict, peer: dict) -> float:
    """How many times as fast as the peer: time of the peer over ours."""
    return peer["seconds"] / ours["seconds"]


def record(suite: str, case: str, rows: Sequence[Sequence[dict]], *, peer: str = "", metric: str = "speed",
           value: Callable[..., float] = speed, ours_at: int = 0, peer_at: int = 1) -> dict:
    """One comparison as it is printed.

    Args:
        suite, case: its name; with ``metric`` it says what is compared.
        rows: of ``take_turns``.
        peer: what the other side is; empty where there is none, and no ratio.
        metric: what the ratio is.
        value: the ratio of one row, from the answers of both sides.
        ours_at, peer_at: columns of ``rows``.
    """
    found = {"suite": suite, "case": case, "ours": summary([row[ours_at] for row in rows])}
    if peer:
        found["peer"] = {"name": peer, **summary([row[peer_at] for row in rows])}
        found["metric"] = metric
        found["ratio"] = spread([value(row[ours_at], row[peer_at]) for row in rows])
    return {**found, "repeats": len(rows)}
