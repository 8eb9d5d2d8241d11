"""Optimisers, their state kept under the names of the model, and the learning rate as a function of the step.

AdamW is Paddle's multi-tensor kernel, SGD its kernel for one tensor; LARS is ours, because Paddle's excludes layers by
generated names only. Biases and parameters with at most one dimension (norms) are not decayed, and LARS does not
adapt them, as SimCLR and BYOL train; ``decay_vectors: true`` decays them too, as PyTorch's SGD and AdamW do in MoCo.
"""
import collections.abc
import fnmatch
import math
from typing import Mapping, Optional, Sequence

import numpy as np
import paddle

from passl_mixer.errors import BadInput, nearest
from passl_mixer.training.adamw import FusedAdamW, kernel_lr_dtype
from passl_mixer.training.lars import Lars

# Options of each optimiser and what they are when the configuration leaves them out.
# Not decayed beside vectors: ViT's embeddings (DeiT) and Swin's bias tables (its authors).
EXCLUDE = ("*.bias", "*.position", "*.class_token", "*.bias_table")
SHARED = {"weight_decay": 0.0, "clip_norm": None, "exclude": EXCLUDE, "decay_vectors": False, "fixed_lr": ()}
OPTIONS = {
    "adamw": {**SHARED, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},  # arXiv:1711.05101
    "sgd": {**SHARED, "momentum": 0.9, "nesterov": False},
    "lars": {**SHARED, "momentum": 0.9, "trust_coefficient": 1e-3, "lr_in_velocity": True},  # arXiv:1708.03888
}
SWITCHES = ("nesterov", "decay_vectors", "lr_in_velocity")
# Exclusive upper bounds; every number is at least 0 (eps, clip_norm and trust_coefficient above it).
BELOW_ONE = ("beta1", "beta2", "momentum")
POSITIVE = ("eps", "clip_norm", "trust_coefficient")


def learning_rate(step: int, *, base: float, total_steps: int, warmup_steps: int = 0, final: float = 0.0,
                  decay: str = "cosine", decay_steps: Sequence[int] = (), decay_factor: float = 0.1) -> float:
    """Linear warm-up from 0, then half a cosine or a straight line; or, with ``decay_steps``, a staircase.

    Args:
        step: optimiser steps done before this one, 0 <= step < total_steps.
        base: the peak, reached at ``step == warmup_steps``.
        total_steps: steps of the whole run.
        warmup_steps: steps of the warm-up; step s of them has ``base * s / warmup_steps``, so the first has 0.
        final: the value the cosine or the line ends at, at ``step == total_steps``.
        decay: "cosine" or "linear".
        decay_steps: in place of both, the steps from which on the rate is multiplied by ``decay_factor``.
        decay_factor: > 0.
    Returns:
        The learning rate of this step. (The code of MoCo and SimSiam changes its cosine once an epoch.)
    Source: cosine: arXiv:1608.03983, one period; warm-up: google-research/simclr ``model_util.py``, deepmind-research
        ``byol/utils/schedules.py``, facebookresearch/moco-v3 ``main_moco.py``; warm-up and line:
        google-research/big_vision ``utils.py``.
    """
    if step < warmup_steps:
        return base * step / warmup_steps
    if decay_steps:
        return base * decay_factor ** sum(step >= s for s in decay_steps)
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final + (base - final) * (1.0 - done if decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done)))


def scaled_lr(lr: float, batch_size: int, base_batch_size: int) -> float:
    """Linear scaling of the learning rate with the batch.

    Args:
        lr: the rate for ``base_batch_size`` images a step.
        batch_size: images a step.
        base_batch_size: images a step that ``lr`` is given for.
    Source: Goyal et al. 2017, arXiv:1706.02677.
    """
    return lr * batch_size / base_batch_size


def build_optimizer(cfg: Mapping, named_parameters: Sequence):
    """Build an optimiser.

    Args:
        cfg: mapping with ``name`` (adamw, sgd or lars) and its options: ``weight_decay``, ``clip_norm`` (of
            the global gradient norm, or null), ``exclude`` (patterns of structured names that are not
            decayed, nor adapted by LARS; parameters with one dimension never are), ``decay_vectors`` (true:
            they are, and so is what ``EXCLUDE`` names; only an ``exclude`` that is given counts), ``fixed_lr``
            (patterns of those whose rate does not follow the schedule), and beta1, beta2, eps (adamw), momentum
            (sgd, lars), nesterov (sgd), trust_coefficient and lr_in_velocity (lars: see ``lars.py``). An option
            set to null is left out.
        named_parameters: ``[(structured name, parameter)]``.
    Returns:
        ``Optimizer``.
    Raises:
        BadInput: unknown name or option, a value out of range, or a pattern that matches nothing.
    """
    if not isinstance(cfg, collections.abc.Mapping) or cfg.get("name") not in OPTIONS:
        name = cfg.get("name") if isinstance(cfg, collections.abc.Mapping) else cfg
        raise BadInput(f"unknown optimiser {name!r}{nearest(str(name), OPTIONS)}")
    name, known = cfg["name"], OPTIONS[cfg["name"]]
    chosen = {k: v for k, v in cfg.items() if k != "name" and v is not None}
    for key, value in chosen.items():
        if key not in known:
            raise BadInput(f"optimiser {name!r} has no option {key!r}{nearest(key, known)}")
        if key in SWITCHES and not isinstance(value, bool):
            raise BadInput(f"optimiser {name!r}: option {key!r} is {value!r}, expected true or false")
        if key not in ("exclude", "fixed_lr", *SWITCHES):
            _check_number(name, key, value)
    named_parameters = list(named_parameters)
    if not named_parameters:
        raise BadInput("there is nothing to optimise: every parameter is frozen")
    for key, pattern in [(k, p) for k in ("exclude", "fixed_lr") for p in chosen.get(k, ())]:
        if not any(fnmatch.fnmatchcase(n, pattern) for n, _ in named_parameters):
            raise BadInput(f"optim.{key}: pattern {pattern!r} matches no parameter"
                           f"{nearest(pattern, [n for n, _ in named_parameters])}")
    exclude = {"exclude": ()} if chosen.get("decay_vectors") else {}
    return Optimizer(name, named_parameters, {**known, **exclude, **chosen})


def _check_number(name: str, key: str, value) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise BadInput(f"optimiser {name!r}: option {key!r} is {value!r}, expected a number")
    too_small = value <= 0 if key in POSITIVE else value < 0
    if too_small or (key in BELOW_ONE and value >= 1) or not math.isfinite(value):
        expected = "in [0, 1)" if key in BELOW_ONE else "positive" if key in POSITIVE else ">= 0"
        raise BadInput(f"optimiser {name!r}: option {key!r} is {value!r}, expected it {expected}")


class Optimizer:
    """One interface over the three optimisers. Made by ``build_optimizer``.

    Args:
        name: adamw, sgd or lars.
        named_parameters: ``[(structured name, parameter)]``.
        options: every option of the optimiser.
    """

    def __init__(self, name: str, named_parameters: list, options: Mapping):
        self.name, self.options = name, dict(options)
        self.named_parameters = named_parameters
        patterns = options["exclude"]
        self.excluded = {n for n, p in named_parameters
                         if (p.ndim <= 1 and not options["decay_vectors"])
                         or any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)}
        self._rules = self._new_rules()

    def _new_rules(self) -> list:
        """``[(rule, names of its parameters, whether their rate is fixed)]``: one, or two with ``fixed_lr``."""
        make = {"adamw": _adamw, "sgd": _sgd, "lars": Lars}[self.name]
        rules = []
        for fixed in (False, True):
            group = [(n, p) for n, p in self.named_parameters
                     if fixed == any(fnmatch.fnmatchcase(n, pattern) for pattern in self.options["fixed_lr"])]
            if group:
                rules.append((make(group, self.excluded, self.options), {p.name for _, p in group}, fixed))
        return rules

    def grad_norm(self):
        """Global L2 norm of the gradients as they are now; scalar float32 tensor, on the device."""
        squares = [paddle.sum(paddle.square(p.grad.astype("float32")))
                   for _, p in self.named_parameters if p.grad is not None]
        return paddle.sqrt(paddle.add_n(squares)) if squares else paddle.zeros([])

    def scale_gradients(self, factor) -> None:
        """Multiply every gradient by a number or scalar tensor, in place."""
        factor = factor if paddle.is_tensor(factor) else paddle.full([], factor)
        with paddle.no_grad():
            for _, p in self.named_parameters:
                if p.grad is not None:
                    p.grad.multiply_(factor.astype(p.grad.dtype))

    def step(self, lr: float, grad_norm=None, *, fixed_lr: Optional[float] = None) -> None:
        """Clip if ``clip_norm`` is set, then update the parameters.

        Args:
            lr: learning rate of this step.
            grad_norm: ``grad_norm()`` of these gradients if it is known already.
            fixed_lr: learning rate of the parameters that option ``fixed_lr`` names; None: ``lr``.
        """
        limit = self.options["clip_norm"]
        if limit is not None:
            norm = self.grad_norm() if grad_norm is None else grad_norm
            self.scale_gradients(limit / paddle.clip(norm, min=limit))
        for rule, _, fixed in self._rules:
            rule.set_lr(float(fixed_lr if fixed and fixed_lr is not None else lr))
            rule.step()

    def clear_grad(self) -> None:
        """Clear the gradients."""
        for _, p in self.named_parameters:
            p.clear_gradient(set_to_zero=False)

    def state(self) -> dict:
        """Copies of the optimiser's state: ``{"parameter name/slot": array}``, empty before the first step."""
        structured = {p.name: n for n, p in self.named_parameters}
        state = {}
        for key, value in [item for rule, _, _ in self._rules for item in rule.state_dict().items()]:
            if key == "LR_Scheduler":
                continue
            # The longest, as a generated name may begin with another ("x.w_0", "x.w_0_deepcopy_0").
            owner = max((n for n in structured if key.startswith(n + "_")), key=len)
            state[f"{structured[owner]}/{key[len(owner) + 1:]}"] = np.array(value.numpy())
        return state

    def load(self, state: Mapping) -> None:
        """Replace the optimiser's state. The next step is then bitwise that of the optimiser that was saved.

        Raises:
            BadInput: an entry of a parameter that is not here, or of another shape.
        """
        parameters = dict(self.named_parameters)
        generated: dict = {p.name: {} for _, p in self.named_parameters}
        for key, value in state.items():
            name, _, slot = key.rpartition("/")
            if name not in parameters:
                raise BadInput(f"the optimiser state has {key!r}, and this model no such trainable parameter"
                               f"{nearest(name, parameters)}")
            shape = list(np.shape(value))
            if shape != list(parameters[name].shape) and np.size(value) != 1:
                raise BadInput(f"optimiser state {key!r} has shape {shape}, its parameter "
                               f"{list(parameters[name].shape)}; the checkpoint is of another model")
            own = parameters[name].name
            generated[own][f"{own}_{slot}"] = paddle.to_tensor(np.array(value))
        self._rules = self._new_rules()  # entries that ``state`` lacks must start from nothing
        for rule, names, _ in self._rules:
            rule.set_state_dict({k: v for name in names for k, v in generated[name].items()})


def _adamw(named_parameters, excluded, options):
    plain = all(p.dtype == paddle.float32 for _, p in named_parameters)
    if plain and kernel_lr_dtype(paddle.get_device()) is not None:
        return FusedAdamW(named_parameters, excluded, options)
    decayed = {p.name for n, p in named_parameters if n not in excluded}
    return paddle.optimizer.AdamW(
        learning_rate=0.0, parameters=[p for _, p in named_parameters],
        weight_decay=float(options["weight_decay"]), beta1=options["beta1"], beta2=options["beta2"],
        epsilon=options["eps"], apply_decay_param_fun=lambda name: name in decayed)


def _sgd(named_parameters, excluded, options):
    groups = [{"params": [p for n, p in named_parameters if (n in excluded) == out], "weight_decay": decay}
              for out, decay in ((False, float(options["weight_decay"])), (True, 0.0))]
    return paddle.optimizer.Momentum(learning_rate=0.0, momentum=options["momentum"],
                                     use_nesterov=options["nesterov"],
                                     parameters=[g for g in groups if g["params"]])
