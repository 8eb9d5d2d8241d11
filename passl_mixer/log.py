"""Log of a run: JSON lines, a progress bar on a terminal (plain lines elsewhere), VisualDL if it is turned on."""
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Optional

from passl_mixer.errors import BadInput
from passl_mixer.files import write_atomic


def duration(seconds: float) -> str:
    """Seconds as text: ``42 s``, ``3:05``, ``1:02:03``, ``2 d 03:04``."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    hours, rest = divmod(seconds, 3600)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{rest // 60:02d}"
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class RunLog:
    """Log of one run; a context manager.

    Args:
        folder: the run folder, for ``log.jsonl`` and ``visualdl/``.
        start_step: steps done already; ``log.jsonl`` loses the lines of an interrupted run after it.
        total_steps: steps of the whole run.
        visualdl: write scalars for VisualDL (package ``visualdl``).
        stream: of the console lines; null: standard output. A terminal gets a progress bar.
        silent: print and write nothing (every rank but 0).
    Attributes:
        evaluations: ``{step: kNN accuracy}`` of an interrupted run up to ``start_step``; empty if silent.
    """

    def __init__(self, folder: Path, *, start_step: int, total_steps: int, visualdl: bool = False,
                 stream=None, silent: bool = False):
        self.stream = stream or sys.stdout
        self.bar = not silent and self.stream.isatty()
        self.silent = silent
        self.total_steps = total_steps
        self.start_step, self.started = start_step, time.perf_counter()
        self._writer = _visualdl_writer(folder / "visualdl") if visualdl and not silent else None
        self._file, earlier = (None, []) if silent else _open_log(folder / "log.jsonl", start_step)
        self.evaluations = {line["step"]: line["knn"] for line in earlier if "knn" in line}
        self._last_line, self._drawn, self._width = "", 0.0, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._clear_bar()
        if self._file:
            self._file.close()
        if self._writer:
            self._writer.close()

    def record(self, line: dict) -> None:
        """Append one object to ``log.jsonl``, flush it, and write its numbers to VisualDL."""
        if self.silent:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._writer:
            for key, value in line.items():
                if isinstance(value, (int, float)) and key not in ("step", "epoch"):
                    self._writer.add_scalar(tag=key, step=line["step"], value=value)

    def training(self, line: dict, epochs: int) -> None:
        """Record a line of training metrics and print it, of ``epochs`` epochs in all."""
        self.record(line)
        extra = "".join(f"  {k} {line[k]:.3f}" for k in ("accuracy", "feature_std") if k in line)
        self._last_line = (f"loss {line['loss']:.4f}  lr {line['lr']:.2e}  "
                           f"{line['images_per_second']:.0f} images/s{extra}")
        if not self.bar:
            self.say(f"step {line['step']}/{self.total_steps}  epoch {line['epoch'] + 1}/{epochs}  "
                     f"{self._last_line}  left {duration(self.seconds_left(line['step']))}")

    def progress(self, step: int) -> None:
        """Redraw the progress bar after ``step`` steps, at most ten times a second."""
        now = time.perf_counter()
        if not self.bar or now - self._drawn < 0.1:
            return
        self._drawn = now
        share = step / self.total_steps
        done, open_ = "█·" if "utf" in (self.stream.encoding or "").lower() else "#."
        blocks = done * int(20 * share) + open_ * (20 - int(20 * share))
        text = (f"{share:4.0%} {blocks} {step}/{self.total_steps}  {self._last_line}  "
                f"left {duration(self.seconds_left(step))}")
        text = text[:shutil.get_terminal_size((200, 24)).columns - 1]      # a wrapped line could not be drawn over
        self.stream.write("\r" + text.ljust(self._width))
        self.stream.flush()
        self._width = len(text)

    def seconds_left(self, step: int) -> float:
        """Time left after ``step`` steps at the mean speed of this run so far, in seconds."""
        done = max(1, step - self.start_step)
        return (time.perf_counter() - self.started) / done * max(0, self.total_steps - step)

    def say(self, text: str) -> None:
        """Print a line without breaking the progress bar."""
        if self.silent:
            return
        self._clear_bar()
        print(text, file=self.stream, flush=True)

    def _clear_bar(self) -> None:
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class Rate:
    """Images per second since the last call.

    Args:
        step: steps done when timing starts.
        batch_size: images per step.
    """

    def __init__(self, step: int, batch_size: int):
        self.batch_size = batch_size
        self.restart(step)

    def restart(self, step: int) -> None:
        """Start timing again, after ``step`` steps."""
        self.step, self.time = step, time.perf_counter()

    def at(self, step: int) -> float:
        """Images per second since the last call, when ``step`` steps are done."""
        seconds, steps = time.perf_counter() - self.time, step - self.step
        self.restart(step)
        return steps * self.batch_size / max(seconds, 1e-9)


def _open_log(path: Path, start_step: int) -> tuple:
    """Open the log for appending, without the lines that an interrupted run wrote after its last checkpoint.

    Returns:
        ``(file, the lines that are kept)``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept, lines = [], []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if text.endswith("\n") and (line := json.loads(text))["step"] <= start_step:
                kept.append(text)
                lines.append(line)
    write_atomic(path, "".join(kept).encode())
    return open(path, "a", encoding="utf-8"), lines


def _visualdl_writer(folder: Path):
    try:
        from visualdl import LogWriter
    except ImportError:
        raise BadInput("train.visualdl is true but the package 'visualdl' is not installed; "
                       "pip install visualdl, or -o train.visualdl=false") from None
    return LogWriter(logdir=str(folder))


def table(rows: list, header: Optional[list] = None) -> str:
    """An aligned plain-text table from rows of texts; the first column is left-aligned, the others right-aligned."""
    rows = [[str(c) for c in row] for row in ([header] if header else []) + rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
             for row in rows]
    if header:
        lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
