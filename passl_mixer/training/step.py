"""One optimiser step, in view.

seed -> forward/backward per micro-batch -> finite check -> clip -> optimiser -> clear -> after_step
"""
import math
from pathlib import Path
from typing import Optional

from passl_mixer import checkpoint, distributed
from passl_mixer.errors import BadInput, NumericalFailure
from passl_mixer.images import as_tensor, to_images
from passl_mixer.training.optim import learning_rate
from passl_mixer.training.run import Run


def lr_at(run: Run, step: int) -> float:
    """The learning rate of a step.

    Args:
        run: the run.
        step: steps done before this one.
    """
    schedule = run.config.schedule
    warmup = schedule.warmup_steps
    warmup = round(schedule.warmup_epochs * run.steps_per_epoch) if warmup is None else warmup
    return learning_rate(step, base=run.peak_lr, total_steps=run.total_steps, final=schedule.min_lr,
                         warmup_steps=warmup, decay=schedule.decay,
                         decay_steps=[round(e * run.steps_per_epoch) for e in schedule.decay_epochs or ()],
                         decay_factor=0.1 if schedule.decay_factor is None else schedule.decay_factor)


def train_step(run: Run, batch, step: int, *, check_finite: Optional[bool] = None) -> dict:
    """One optimiser step.

    Args:
        run: the run.
        batch: ``(views, labels)`` of the loader: uint8 [B, S, S, 3] per view; labels int64 [B], token ids
            [B, N] or None.
        step: steps done before this one.
        check_finite: check the outputs, which reads them from the device. By default only on the CPU.
    Returns:
        The method's outputs, scalars on the device, averaged over micro-batches.
    Raises:
        NumericalFailure: an output of the method is not finite. Gradients are not checked.
        BadInput: the first backward pass did not reach a trainable parameter.
    """
    run.seed_step(step)
    passes = [_pass(run, views, labels, step) for views, labels in _micro_batches(run, batch)]
    outputs = {name: sum(output[name] for output in passes) / len(passes) for name in passes[0]}
    if not run.gradients_checked:
        refuse_without_gradient(run.method)
        run.gradients_checked = True
    if run.device == "cpu" if check_finite is None else check_finite:
        refuse_not_finite(run, outputs, step)
    parameters = [p for _, p in run.method.trainable_parameters()]
    distributed.average_gradients(parameters)
    if run.precision.unscale(parameters):
        run.optimizer.step(lr_at(run, step), fixed_lr=run.peak_lr)
    if run.graphed is None or not run.graphed.keeps_gradients:
        run.optimizer.clear_grad()
    run.method.after_step(step, run.total_steps)
    return outputs


def _pass(run: Run, views: list, labels, step: int) -> dict:
    """Forward and backward pass; gradients are added to the parameters' ``grad``, the outputs are returned."""
    def run_pass(tensors):
        with run.precision.autocast():
            output = run.method(tensors[:len(views)], None if labels is None else tensors[-1])
        (output["loss"] * (run.precision.scale / run.accumulate_steps)).backward()
        return {k: v.detach() for k, v in output.items()}

    tensors = [*views, *([] if labels is None else [labels])]
    return run_pass(tensors) if run.graphed is None else run.graphed(run_pass, tensors, step)


def _micro_batches(run: Run, batch):
    views, labels = batch
    size = len(views[0]) // run.accumulate_steps
    for i in range(run.accumulate_steps):
        rows = slice(i * size, (i + 1) * size)
        yield ([to_images(v[rows], run.views.mean, run.views.std) for v in views],
               None if labels is None else as_tensor(labels[rows]))


def refuse_without_gradient(method) -> None:
    """Raise ``BadInput`` with the names of trainable parameters without a gradient, which the optimiser would skip.

    Args:
        method: after a backward pass.
    Raises:
        BadInput: some have none.
    """
    without = [name for name, p in method.trainable_parameters() if p.grad is None]
    if without:
        names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        raise BadInput(f"{len(without)} trainable parameter(s) got no gradient from the first backward pass and would "
                       f"never learn: {names}; let the loss depend on them, or freeze them (trainable = False)")


def refuse_not_finite(run: Run, outputs: dict, step: int) -> None:
    """Raise ``NumericalFailure`` if an output of a step is NaN or infinite. All processes call it together.

    It checks every output, not only the loss: Paddle's ReLU turns NaN into 0, so the loss can be finite where features
    are NaN. If one process has such an output, all end: the others would wait for its gradients for ever.

    Args:
        run: the run.
        outputs: of ``train_step``, scalars.
        step: for the message.
    Raises:
        NumericalFailure: an output of this or another process is not finite.
    """
    bad = {name: float(value) for name, value in outputs.items() if not math.isfinite(float(value))}
    if not distributed.maximum([float(bool(bad))])[0]:
        return
    saved = checkpoint.checkpoints_of(Path(run.config.output_dir))
    last = f"the last checkpoint, from before, is {saved[-1]}" if saved else "no checkpoint was saved yet"
    words = " and ".join(f"{name} is {value}" for name, value in bad.items()) or "not finite in another process"
    raise NumericalFailure(f"{words} at step {step} (peak learning rate {run.peak_lr:.2e}); {last}. Try a lower "
                           "optim.lr, a longer schedule.warmup_epochs, optim.clip_norm=1.0 or train.precision=fp32")
