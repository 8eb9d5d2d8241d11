"""The training loop: build -> restore -> for epoch: for batch: train_step; log; save; evaluate.

Functions only. A batch goes dataset -> views -> loader -> method -> {"loss"} -> optimiser -> after_step -> log. The
part from the loader to after_step is in ``step.py``.
"""
import time
from pathlib import Path
from typing import Optional

from passl_mixer import checkpoint, distributed
from passl_mixer.config import Config
from passl_mixer.evaluation import evaluate
from passl_mixer.evaluation.features import encoder_features
from passl_mixer.log import Rate, RunLog
from passl_mixer.ops import native
from passl_mixer.training.interruption import Interruption, Stopped
from passl_mixer.training.run import Run, build_run
from passl_mixer.training.saving import restore, save, save_config, save_summary
from passl_mixer.training.step import lr_at, train_step


def train(config: Config, *, resume: bool = False) -> dict:
    """Train a configuration to its end, or to ``train.max_steps``.

    Args:
        config: from ``get_config``.
        resume: continue the run that ``output_dir`` holds, if there is one.
    Returns:
        The content of ``summary.json``. After a signal ``interrupted`` is true in it, and nothing is evaluated.
    Raises:
        BadInput: the configuration, the data or the run folder does not fit.
        NumericalFailure: an output or a parameter is no longer finite.
    """
    distributed.init()
    run = build_run(config, resume)
    config, folder, first = run.config, Path(config.output_dir), run.rank == 0
    step, seconds, best = restore(run)
    with RunLog(folder, start_step=step, total_steps=run.last_step, visualdl=config.train.visualdl,
                silent=not first) as log:
        if first:
            save_config(run)
        _announce(run, log, step)
        started = time.perf_counter() - seconds
        with Interruption() as interruption:
            step, interrupted = _loop(run, log, interruption, step, started, best)
            seconds = time.perf_counter() - started
            summary = {"seconds": round(seconds, 3), "steps": step,
                       "images_per_second": round(step * config.data.batch_size / max(seconds, 1e-9), 2)}
            if interrupted:
                log.say(f"interrupted at step {step}; saved. Continue with the same command and --resume.")
                distributed.maximum([0.0])      # none leaves before the first has saved: a launcher then ends all
                return {**summary, "interrupted": True}
        if first:
            accuracies = _final_evaluation(run, log)
            summary.update(accuracies)
            save_summary(run, summary)
            _farewell(folder, log, accuracies)
    return summary


def _loop(run: Run, log: RunLog, interruption, step: int, started: float, best: float) -> tuple:
    """The loop over epochs and batches; returns ``(steps done, whether a signal ended it)``.

    The checkpoint is written before the kNN evaluation, which can take minutes. If the run is interrupted there, the
    resumed run repeats the evaluation first.

    Args:
        started: ``time.perf_counter()`` when the run began, less the time in which it did not run.
        best: the best kNN accuracy in the checkpoint.
    """
    config, rate = run.config, Rate(step, run.config.data.batch_size)
    best = max([best, *log.evaluations.values()])
    # The log says whether the kNN of a checkpoint was done: its line is written after best.safetensors. Only the first
    # process has the log, and all must agree.
    recorded = distributed.maximum([float(step in log.evaluations)])[0]
    interrupted = False
    if _knn_is_due(run, step) and not recorded:
        best, interrupted = _run_knn(run, log, interruption, step, started, best)
        rate.restart(step)
    while step < run.last_step and not interrupted:
        epoch, done = divmod(step, run.steps_per_epoch)
        for batch in run.batches(epoch, done):
            ends = step + 1 >= run.last_step
            logs, saves = ends or _log_is_due(run, step + 1), ends or _save_is_due(run, step + 1)
            knn = _knn_is_due(run, step + 1)
            outputs = train_step(run, batch, step, check_finite=run.device == "cpu" or logs or saves or knn)
            step += 1
            interrupted = interruption.should_stop()
            if logs or interrupted:
                line = _training_line(run, outputs, step, epoch, rate)
                log.training(line, config.schedule.epochs)
                _warn_of_collapse(run, log, line)
            log.progress(step)
            if saves or interrupted:
                save(run, step, started, best)
            if knn and not interrupted:
                best, interrupted = _run_knn(run, log, interruption, step, started, best)
                rate.restart(step)
                if interrupted and not saves:
                    save(run, step, started, best)
            if ends or interrupted:
                break
    return step, interrupted or interruption.should_stop()


def _log_is_due(run: Run, step: int) -> bool:
    return step == 1 or step % run.config.train.log_every_steps == 0


def _knn_is_due(run: Run, step: int) -> bool:
    return _every(_epochs_ended(run, step), run.config.evaluate.every_epochs) and not run.skip_eval_reason


def _save_is_due(run: Run, step: int) -> bool:
    settings = run.config.train
    return (_every(step, settings.checkpoint_every_steps)
            or _every(_epochs_ended(run, step), settings.checkpoint_every_epochs))


def _epochs_ended(run: Run, step: int) -> int:
    """Epochs done, when the last step ended one; 0 in the middle of an epoch."""
    epochs, rest = divmod(step, run.steps_per_epoch)
    return 0 if rest else epochs


def _every(count: int, interval: Optional[int]) -> bool:
    return count > 0 and bool(interval) and count % interval == 0


def _training_line(run: Run, outputs: dict, step: int, epoch: int, rate: Rate) -> dict:
    """The line of a step for the log: outputs averaged over processes. All processes call it together."""
    means = distributed.mean([float(value) for value in outputs.values()])
    return {"step": step, "epoch": epoch, **dict(zip(outputs, means)),
            "lr": lr_at(run, step - 1), "images_per_second": round(rate.at(step), 2)}


def _warn_of_collapse(run: Run, log: RunLog, line: dict) -> None:
    threshold = run.config.train.collapse_threshold
    if line.get("feature_std", threshold) < threshold:
        log.say(f"warning: the features' standard deviation is {line['feature_std']:.4f}, under "
                f"train.collapse_threshold {threshold}: the encoder gives nearly the same vector for "
                "every image. Try a lower optim.lr or another temperature.")


def _run_knn(run: Run, log: RunLog, interruption, step: int, started: float, best: float) -> tuple:
    """Evaluate kNN, save the best encoder, log; returns ``(best accuracy so far, whether a signal came)``.

    After a signal the evaluation stops and nothing is logged.
    """
    epoch = step // run.steps_per_epoch - 1
    encode = encoder_features(run.method.encoder, run.config.train.precision)
    try:
        accuracy = evaluate.evaluate_features(run.config, interruption.stopping(encode), ["knn"])["knn"]
    except Stopped:
        return best, True
    if distributed.maximum([float(accuracy > best)])[0]:        # processors of two kinds may round differently
        best = accuracy
        save(run, step, started, best, name="best.safetensors")
    log.record({"step": step, "epoch": epoch, "knn": accuracy})
    log.say(f"epoch {epoch + 1}/{run.config.schedule.epochs}  kNN accuracy {accuracy:.4f}")
    interrupted = interruption.should_stop()
    interruption.restart()
    return best, interrupted


def _announce(run: Run, log: RunLog, step: int) -> None:
    config = run.config
    trainable = sum(p.size for _, p in run.method.trainable_parameters())
    log.say(f"{config.model.method.name} with {config.model.backbone.name} ({trainable / 1e6:.2f} M trainable "
            f"parameters), {config.data.dataset.name} ({len(run.loader.dataset)} images), {run.device}, "
            f"{run.precision.dtype or 'float32'}: {run.total_steps} steps of {config.data.batch_size} images "
            f"in {config.schedule.epochs} epochs"
            + (f", ending at step {run.last_step} (train.max_steps)" if run.last_step < run.total_steps else ""))
    if config.train.precision in ("bf16", "fp16") and run.precision.dtype is None:
        why = native.bf16_status() if (config.train.precision, run.device) == ("bf16", "cpu") else "no support"
        log.say(f"train.precision {config.train.precision} is not available on {run.device} ({why}): "
                "computing in float32")
    if config.train.cuda_graphs and run.graphed is None:
        log.say(f"train.cuda_graphs is not available on {run.device}: every step is launched kernel by kernel")
    if config.train.channels_last and not hasattr(run.method.backbone, "data_formats"):
        log.say(f"train.channels_last: {config.model.backbone.name} has no stack of convolutions to turn")
    if run.skip_eval_reason and run.skip_eval_reason != "not asked for":
        log.say(f"no evaluation: {run.skip_eval_reason}")
    if run.previous is not None:
        log.say(f"resumed from {run.previous} at step {step}")


def _final_evaluation(run: Run, log: RunLog) -> dict:
    items = run.config.evaluate.at_end
    if not items or run.skip_eval_reason:
        return {}
    log.say(f"evaluating {', '.join(items)} ...")
    return evaluate.evaluate_method(run.config, run.method, items)


def _farewell(folder: Path, log: RunLog, accuracies: dict) -> None:
    if accuracies:
        log.say(f"\n{evaluate.comparison_table(accuracies)}\n")
    log.say(f"checkpoint  {checkpoint.find_checkpoint(folder)}")
    log.say(f"log         {folder / 'log.jsonl'}   summary  {folder / 'summary.json'}")
    log.say(f"next        passl-mixer eval -c {folder / 'config.yaml'} --checkpoint {folder} --knn --linear")
