"""One optimiser step, in view.

    lr -> forward/backward per micro-batch -> finite check -> clip -> optimiser -> clear -> after_step
"""
import math
from pathlib import Path

from passl_mixer import checkpoint, distributed, runtime
from passl_mixer.errors import BadInput, NumericalFailure
from passl_mixer.images import as_tensor, to_images
from passl_mixer.training.optim import learning_rate
from passl_mixer.training.run import Run


def lr_at(run: Run, step: int) -> float:
    """Learning rate of the step after ``step`` steps."""
    schedule = run.config.schedule
    warmup = schedule.warmup_steps
    warmup = round(schedule.warmup_epochs * run.steps_per_epoch) if warmup is None else warmup
    return learning_rate(step, base=run.peak_lr, total_steps=run.total_steps, final=schedule.min_lr,
                         warmup_steps=warmup, decay=schedule.decay,
                         decay_steps=[round(e * run.steps_per_epoch) for e in schedule.decay_epochs or ()],
                         decay_factor=0.1 if schedule.decay_factor is None else schedule.decay_factor)


def train_step(run: Run, batch, step: int) -> dict:
    """One optimiser step.

    Args:
        run: the run.
        batch: ``(views, labels)`` of the loader: uint8 [B, S, S, 3] per view, int64 [B] or None.
        step: steps done before this one.
    Returns:
        The method's outputs, averaged over micro-batches, still on the device.
    Raises:
        NumericalFailure: an output of the method is not finite (looked at on every step on the CPU; the training loop
            looks on logging and saving steps elsewhere, so that the host does not wait).
        BadInput: the first backward pass did not reach a trainable parameter.
    """
    config = run.config
    runtime.seed_step(config.seed, step, distributed.rank())
    outputs = []
    for views, labels in _micro_batches(run, batch):
        outputs.append(_pass(run, views, labels, step))
        if not run.gradients_checked:
            refuse_without_gradient(run.method)
            run.gradients_checked = True
        if run.device == "cpu":
            refuse_not_finite(run, outputs[-1], step)
    parameters = [p for _, p in run.method.trainable_parameters()]
    distributed.average_gradients(parameters)
    if run.precision.unscale(parameters):
        run.optimizer.step(lr_at(run, step), fixed_lr=run.peak_lr)
    if run.graphed is None or not run.graphed.keeps_gradients:
        run.optimizer.clear_grad()
    run.method.after_step(step, run.total_steps)
    return {k: sum(o[k] for o in outputs) / len(outputs) for k in outputs[0]}


def _pass(run: Run, views: list, labels, step: int) -> dict:
    """Forward and backward: the gradients are added to the parameters', the outputs are returned."""
    def run_pass(tensors):
        with run.precision.autocast():
            output = run.method(tensors[:len(views)], None if labels is None else tensors[-1])
        (output["loss"] * (run.precision.scale / run.config.train.accumulate_steps)).backward()
        return {k: v.detach() for k, v in output.items()}

    tensors = [*views, *([] if labels is None else [labels])]
    return run_pass(tensors) if run.graphed is None else run.graphed(run_pass, tensors, step)


def _micro_batches(run: Run, batch):
    views, labels = batch
    size = len(views[0]) // run.config.train.accumulate_steps
    for i in range(run.config.train.accumulate_steps):
        rows = slice(i * size, (i + 1) * size)
        yield ([to_images(v[rows], run.views.mean, run.views.std) for v in views],
               None if labels is None else as_tensor(labels[rows]))


def refuse_without_gradient(method) -> None:
    """``BadInput`` that names the trainable parameters without a gradient; the optimiser would skip them in silence.

    Args:
        method: after a backward pass.
    """
    without = [name for name, p in method.trainable_parameters() if p.grad is None]
    if without:
        names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        raise BadInput(f"{len(without)} trainable parameter(s) got no gradient from the first backward pass and would "
                       f"never learn: {names}; let the loss depend on them, or freeze them (trainable = False)")


def refuse_not_finite(run: Run, outputs: dict, step: int) -> None:
    """End the run, ``NumericalFailure``, where an output of a step is NaN or infinite; all processes call it together.

    Every output is looked at, not the loss alone: Paddle's ReLU turns NaN into 0, so NaN features can hide behind it.
    What one process finds ends all of them: the others would wait for its gradients for ever.
    """
    bad = {name: float(value) for name, value in outputs.items() if not math.isfinite(float(value))}
    if not distributed.maximum([float(bool(bad))])[0]:
        return
    saved = checkpoint.checkpoints_of(Path(run.config.output_dir))
    last = f"the last checkpoint, from before, is {saved[-1]}" if saved else "no checkpoint was saved yet"
    words = " and ".join(f"{name} is {value}" for name, value in bad.items()) or "not finite in another process"
    raise NumericalFailure(f"{words} at step {step} (peak learning rate {run.peak_lr:.2e}); {last}. Try a lower "
                           "optim.lr, a longer schedule.warmup_epochs, optim.clip_norm=1.0 or train.precision=fp32")
