"""Runs in this process, step by step; the code of a page of docs."""
import itertools
import re
import runpy
from pathlib import Path

from passl_mixer.training.step import train_step

DOCS = Path(__file__).resolve().parents[2] / "docs"


def batches_of(run):
    """Batches without end, epoch after epoch."""
    return (batch for epoch in itertools.count() for batch in run.loader.epoch(epoch))


def first_losses(run, steps: int) -> list:
    """The loss tensors of a run's first steps."""
    return [train_step(run, batch, step)["loss"] for step, batch in zip(range(steps), batches_of(run))]


def code_of(page: str) -> list:
    """The blocks of Python in a page of docs."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def run_code(blocks: list, folder: Path) -> dict:
    """Run blocks of code as one script; returns its names."""
    script = folder / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    return runpy.run_path(str(script))
