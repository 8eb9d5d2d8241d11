"""The training run, in view: build -> resume -> for epoch: for batch: train_step; log; evaluate; save.

Functions only. A batch travels dataset -> views -> loader -> method -> {"loss"} -> optimiser -> after_step -> log; the
part from the loader to after_step is in ``step.py``.
"""
import json
import time
from pathlib import Path
from typing import Optional

import numpy as np

from passl_mixer import checkpoint, distributed, evaluate, runtime
from passl_mixer.build import Run, build, resolve
from passl_mixer.config import Config
from passl_mixer.data import check_dataset
from passl_mixer.errors import NumericalFailure
from passl_mixer.interruption import Interruption
from passl_mixer.log import Rate, RunLog
from passl_mixer.prefetch import ahead, mover
from passl_mixer.step import lr_at, refuse_not_finite, train_step


def train(config: Config, *, resume: bool = False) -> dict:
    """Run a configuration to its end (or to ``train.max_steps``).

    Args:
        config: from ``get_config``.
        resume: continue the run that ``output_dir`` holds, if there is one.
    Returns:
        The content of ``summary.json``; with key ``interrupted`` true after a signal (then nothing is evaluated).
    Raises:
        BadInput, NumericalFailure.
    """
    check_dataset(config.data.dataset)
    if config.data.eval_dataset:
        check_dataset(config.data.eval_dataset, "test")
    distributed.init()
    config = resolve(config)
    previous = checkpoint.open_run(config, resume)
    run = build(config)
    folder = Path(config.output_dir)
    step, seconds, best = _restore(run, previous)
    first = distributed.rank() == 0
    with RunLog(folder, start_step=step, total_steps=run.last_step, visualdl=config.train.visualdl,
                silent=not first) as log:
        if first:
            checkpoint.write_config(config, runtime.versions())
        _announce(run, log, previous, step)
        started = time.perf_counter()
        with Interruption(step) as interruption:
            step, best = _loop(run, log, interruption, step, seconds, best)
            seconds += time.perf_counter() - started
            summary = {"seconds": round(seconds, 3), "steps": step,
                       "images_per_second": round(step * config.data.batch_size / max(seconds, 1e-9), 2)}
            if step < run.last_step:
                log.say(f"interrupted at step {step}; saved. Continue with the same command and --resume.")
                distributed.maximum([0.0])      # none leaves before the first has saved: a launcher then ends all
                return {**summary, "interrupted": True}
        if first:
            found = _final_evaluation(run, log)
            summary.update(found)
            checkpoint.write_atomic(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
            _farewell(folder, log, found)
    return summary


def _restore(run: Run, previous: Optional[Path]) -> tuple:
    """Load a checkpoint into a run; returns ``(step, seconds so far, best kNN)``."""
    if previous is None:
        return 0, 0.0, -1.0
    model, optim, meta = checkpoint.read_checkpoint(previous)
    checkpoint.load_arrays(run.method, model, str(previous))
    run.optimizer.load(optim)
    run.precision.load(meta["precision"])
    return meta["step"], meta["seconds"], meta["best_knn"]


def _save(run: Run, step: int, seconds: float, best: float, name: Optional[str] = None) -> Path:
    folder = Path(run.config.output_dir)
    path = folder / "checkpoints" / (name or f"step_{step:07d}.safetensors")
    meta = {"step": step, "epoch": step // run.steps_per_epoch, "seconds": seconds, "best_knn": best,
            "config": run.config, "precision": run.precision.state()}
    if distributed.rank() == 0:
        model = checkpoint.arrays_of(run.method)
        broken = [name for name, value in model.items() if not np.isfinite(value).all()]
        if broken:
            raise NumericalFailure(f"{broken[0]} is not finite after step {step}; this state was not saved. Try "
                                   "a lower optim.lr or optim.clip_norm=1.0")
        checkpoint.save_checkpoint(path, model, run.optimizer.state(), meta)
        checkpoint.prune(folder, run.config.train.keep_checkpoints)
    return path


def _loop(run: Run, log: RunLog, interruption, step: int, seconds: float, best: float) -> tuple:
    """The loop over epochs and batches; returns ``(steps done, best kNN)``."""
    config, saved_at, stops = run.config, step, False
    started, rate, side = time.perf_counter(), Rate(step, config.data.batch_size), mover(run.device)
    while step < run.last_step and not stops:
        epoch, done = divmod(step, run.steps_per_epoch)
        for batch in ahead(run.loader.epoch(epoch, start_batch=done), side):
            outputs = train_step(run, batch, step)
            step += 1
            epoch_ends, stops = step % run.steps_per_epoch == 0, step >= run.last_step or interruption.stops_after(step)
            saves = stops or _save_is_due(config.train, step, epoch_ends, run.steps_per_epoch)
            if step % config.train.log_every_steps == 0 or stops or step == 1:
                log.training(_training_line(run, outputs, step, epoch, rate), config.schedule.epochs)
                _warn_of_collapse(run, log, outputs)
            log.progress(step)
            if epoch_ends and _monitors(run, epoch):
                best = _monitor(run, log, step, epoch, best, seconds + time.perf_counter() - started)
                rate.restart(step)
            if saves and saved_at != step:
                refuse_not_finite(run, outputs, step)
                _save(run, step, seconds + time.perf_counter() - started, best)
                saved_at = step
            if stops:
                break
    return step, best


def _monitors(run: Run, epoch: int) -> bool:
    every = run.config.evaluate.every_epochs
    return bool(every) and (epoch + 1) % every == 0 and not run.not_evaluated


def _save_is_due(settings: Config, step: int, epoch_ends: bool, steps_per_epoch: int) -> bool:
    by_steps = settings.checkpoint_every_steps and step % settings.checkpoint_every_steps == 0
    every = settings.checkpoint_every_epochs
    return bool(by_steps or (epoch_ends and every and (step // steps_per_epoch) % every == 0))


def _training_line(run: Run, outputs: dict, step: int, epoch: int, rate: Rate) -> dict:
    refuse_not_finite(run, outputs, step)
    return {"step": step, "epoch": epoch, **{k: float(v) for k, v in outputs.items()},
            "lr": lr_at(run, step - 1), "images_per_second": round(rate.at(step), 2)}


def _warn_of_collapse(run: Run, log: RunLog, outputs: dict) -> None:
    threshold = run.config.train.collapse_threshold
    if "feature_std" in outputs and float(outputs["feature_std"]) < threshold:
        log.say(f"warning: the features' standard deviation is {float(outputs['feature_std']):.4f}, under "
                f"train.collapse_threshold {threshold}: the encoder gives nearly the same vector for "
                "every image. Try a lower optim.lr or another temperature.")


def _monitor(run: Run, log: RunLog, step: int, epoch: int, best: float, seconds: float) -> float:
    """Evaluate by kNN, record it, keep the best encoder's checkpoint; returns the best kNN so far."""
    accuracy = evaluate.evaluation(run.config, run.method.encoder, ["knn"])["knn"]
    log.record({"step": step, "epoch": epoch, "knn": accuracy})
    log.say(f"epoch {epoch + 1}/{run.config.schedule.epochs}  kNN accuracy {accuracy:.4f}")
    if accuracy <= best:
        return best
    _save(run, step, seconds, accuracy, name="best.safetensors")
    return accuracy


def _announce(run: Run, log: RunLog, previous: Optional[Path], step: int) -> None:
    config = run.config
    trainable = sum(p.size for _, p in run.method.trainable_parameters())
    log.say(f"{config.model.method.name} with {config.model.backbone.name} ({trainable / 1e6:.2f} M trainable "
            f"parameters), {config.data.dataset.name} ({len(run.loader.dataset)} images), {run.device}, "
            f"{run.precision.dtype or 'float32'}: {run.total_steps} steps of {config.data.batch_size} images "
            f"in {config.schedule.epochs} epochs"
            + (f", ending at step {run.last_step} (train.max_steps)" if run.last_step < run.total_steps else ""))
    if config.train.precision != "fp32" and run.precision.dtype is None:
        log.say(f"train.precision {config.train.precision} is not available on {run.device}: "
                "computing in float32")
    if config.train.cuda_graphs and run.graphed is None:
        log.say(f"train.cuda_graphs is not available on {run.device}: every step is launched kernel by kernel")
    if config.train.channels_last and not hasattr(run.method.backbone, "channels_last"):
        log.say(f"train.channels_last: {config.model.backbone.name} has no stack of convolutions to turn")
    if run.not_evaluated and run.not_evaluated != "not asked for":
        log.say(f"no evaluation: {run.not_evaluated}")
    if previous is not None:
        log.say(f"resumed from {previous} at step {step}")


def _final_evaluation(run: Run, log: RunLog) -> dict:
    items = run.config.evaluate.at_end
    if not items or run.not_evaluated:
        return {}
    log.say(f"evaluating {', '.join(items)} ...")
    return evaluate.report(run.config, run.method, items)


def _farewell(folder: Path, log: RunLog, found: dict) -> None:
    if found:
        log.say(f"\n{evaluate.comparison_table(found)}\n")
    log.say(f"checkpoint  {checkpoint.find_checkpoint(folder)}")
    log.say(f"log         {folder / 'log.jsonl'}   summary  {folder / 'summary.json'}")
    log.say(f"next        passl-mixer eval -c {folder / 'config.yaml'} --checkpoint {folder} --knn --linear")
