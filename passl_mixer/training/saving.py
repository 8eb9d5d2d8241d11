"""A run saved as a checkpoint and restored: method, optimiser, loss scale and progress."""
import json
import time
from pathlib import Path
from typing import Optional

import numpy as np

from passl_mixer import checkpoint, distributed, runtime
from passl_mixer.errors import NumericalFailure
from passl_mixer.files import write_atomic
from passl_mixer.training.run import Run


def restore(run: Run) -> tuple:
    """Load the checkpoint that a run continues from, if there is one.

    Args:
        run: as ``build_run`` returns it.
    Returns:
        ``(steps done, seconds so far, best kNN accuracy so far)``; the accuracy is -1 if there was no evaluation.
    Raises:
        BadInput: the file cannot be read, or belongs to another model.
    """
    if run.previous is None:
        return 0, 0.0, -1.0
    model, optim, meta = checkpoint.read_checkpoint(run.previous)
    checkpoint.load_arrays(run.method, model, str(run.previous))
    run.optimizer.load(optim)
    run.precision.load(meta["precision"])
    return meta["step"], meta["seconds"], meta["best_knn"]


def save_config(run: Run) -> None:
    """Write the resolved configuration and the versions into the run folder."""
    checkpoint.write_config(run.config, runtime.versions())


def save_summary(run: Run, summary: dict) -> None:
    """Write ``summary.json``, when a run is complete."""
    write_atomic(Path(run.config.output_dir) / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def save(run: Run, step: int, started: float, best: float, name: Optional[str] = None) -> None:
    """Save a checkpoint. All processes call it together; the first one writes.

    Args:
        run: the run.
        step: steps done.
        started: ``time.perf_counter()`` when the run began, less the time in which it did not run.
        best: the best kNN accuracy so far, 0 to 1; -1 if there was no evaluation.
        name: file name; by default ``step_<step>.safetensors``. Of these, all but the newest
            ``train.keep_checkpoints`` are deleted.
    Raises:
        NumericalFailure: a parameter is not finite. Nothing is saved.
    """
    folder, first = Path(run.config.output_dir), distributed.rank() == 0
    model = checkpoint.arrays_of(run.method) if first else {}
    broken = [name for name, value in model.items() if not np.isfinite(value).all()]
    if distributed.maximum([float(bool(broken))])[0]:
        raise NumericalFailure(f"{broken[0] if first else 'a parameter'} is not finite after step {step}; this state "
                               "was not saved. Try a lower optim.lr or optim.clip_norm=1.0")
    if not first:
        return
    meta = {"step": step, "epoch": step // run.steps_per_epoch, "seconds": time.perf_counter() - started,
            "best_knn": best, "config": run.config, "precision": run.precision.state()}
    path = folder / "checkpoints" / (name or f"step_{step:07d}.safetensors")
    checkpoint.save_checkpoint(path, model, run.optimizer.state(), meta)
    checkpoint.prune(folder, run.config.train.keep_checkpoints)
