"""AdamW by a native kernel, or over all parameters in a few calls by Paddle's multi-tensor kernel.

``paddle.optimizer.AdamW`` loops over the parameters in Python and launches a kernel for each, on a CPU on one core; the
native kernel runs on all of them. On a GPU the multi-tensor kernel takes lists. On a CPU the results of the
three are the same bit for bit. The state has the names that ``paddle.optimizer.AdamW`` uses, so each reads the other's
checkpoints. Made by ``optim.build_optimizer``.
"""
import functools
import inspect
import math
from typing import Mapping, Optional

import numpy as np
import paddle

from passl_mixer.ops import native

CHUNK = 1 << 16                                 # numbers that one block of threads of a GPU updates
SLOTS = ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0")        # as paddle.optimizer.AdamW says


class FusedAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101): decay and gradient step both times the learning rate.

    Args:
        named_parameters: ``[(structured name, parameter)]``, float32.
        excluded: structured names that are not decayed.
        options: weight_decay, beta1, beta2, eps.
    """

    def __init__(self, named_parameters, excluded, options):
        self.parameters = [(p, n not in excluded) for n, p in named_parameters]
        self.options, self.lr = options, 0.0
        self.slots: dict = {}                   # of a parameter that had a gradient: the tensors of SLOTS
        self.ages: dict = {}                    # those of one age share the powers of beta that the kernel reads

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    @paddle.no_grad()
    def step(self) -> None:
        if self._native_step():
            return
        groups: dict = {}
        for p, decayed in self.parameters:
            if p.grad is not None:
                self._slots_of(p)
                groups.setdefault((decayed, self.ages[p.name]), []).append(p)
        for (decayed, (loaded, steps)), parameters in groups.items():
            slots = zip(*(self.slots[p.name] for p in parameters))
            update(parameters, [p.grad for p in parameters], *map(list, slots), lr=self.lr,
                   decay=float(self.options["weight_decay"]) if decayed else 0.0, options=self.options)
            self.ages.update((p.name, (loaded, steps + 1)) for p in parameters)

    def _native_step(self) -> bool:
        """The step by the native kernel, which uses every core of a CPU; False where it is not for these parameters."""
        if native.load() is None or not all(p.place.is_cpu_place() for p, _ in self.parameters):
            return False
        options = [float(self.options[key]) for key in ("beta1", "beta2", "eps")]
        for p, decayed in self.parameters:
            if p.grad is None:
                continue
            decay = float(self.options["weight_decay"]) if decayed else 0.0
            native.call("adamw", p, native.dense(p.grad), *self._slots_of(p), math.prod(p.shape), float(self.lr),
                        decay, *options)
        return True

    def _slots_of(self, p) -> list:
        """The tensors of SLOTS of a parameter, made at its first step."""
        if p.name not in self.slots:
            self.slots[p.name], self.ages[p.name] = self._new_slots(p), (None, 0)
        return self.slots[p.name]

    def _new_slots(self, p) -> list:
        powers = [paddle.to_tensor(np.full([1], self.options[beta], "float32"), place=paddle.CPUPlace())
                  for beta in ("beta1", "beta2")]
        return [paddle.zeros_like(p), paddle.zeros_like(p), *powers]

    def state_dict(self) -> dict:
        return {f"{name}_{slot}": value for name, values in self.slots.items() for slot, value in zip(SLOTS, values)}

    def set_state_dict(self, state: Mapping) -> None:
        for p, _ in self.parameters:
            slots = [state.get(f"{p.name}_{slot}") for slot in SLOTS]
            if all(value is not None for value in slots):
                powers = [value.numpy().reshape(1) for value in slots[2:]]
                self.slots[p.name] = slots[:2] + [paddle.to_tensor(v, place=paddle.CPUPlace()) for v in powers]
                self.ages[p.name] = (tuple(v.item() for v in powers), 0)


def update(parameters, gradients, moments1, moments2, powers1, powers2, *, lr: float, decay: float,
           options: Mapping, lr_dtype: Optional[str] = None) -> None:
    """One call of the kernel, in place.

    Args:
        parameters, gradients, moments1, moments2: lists of tensors, of one shape each.
        powers1, powers2: of beta1 and beta2, [1] on the CPU; on a GPU the first ones stand for all.
        lr: learning rate.
        decay: weight decay of all these parameters.
        options: beta1, beta2, eps.
        lr_dtype: the dtype in which the kernel takes the learning rate; by default the current device's.
    """
    amsgrad = _has_amsgrad()
    paddle._C_ops.fused_adam_(
        parameters, gradients, paddle.full([1], lr, lr_dtype or kernel_lr_dtype(paddle.get_device())), moments1,
        moments2, *[None] * amsgrad, powers1, powers2, None, None, options["beta1"], options["beta2"], options["eps"],
        CHUNK, decay, True, False, False, *[False] * amsgrad)


@functools.cache
def _has_amsgrad() -> bool:
    """Whether the kernel takes the arguments of AMSGrad: from Paddle 3.0 on."""
    return "amsgrad" in inspect.signature(paddle.optimizer.AdamW.__init__).parameters


@functools.cache
@paddle.no_grad()
def kernel_lr_dtype(device: str) -> Optional[str]:
    """The type that the kernel takes learning rates in, found by one update; None if no type gives AdamW's update.

    Args:
        device: the current one, as Paddle names it.
    """
    options = {"beta1": 0.5, "beta2": 0.75, "eps": 0.0}
    for dtype in ("float32", "float64"):
        tensors = [[paddle.full([3], value)] for value in (2.0, -0.5, 0.0, 0.0)]
        powers = [[paddle.to_tensor(np.array([options[beta]], "float32"), place=paddle.CPUPlace())]
                  for beta in ("beta1", "beta2")]
        try:
            update(*tensors, *powers, lr=0.25, decay=0.125, options=options, lr_dtype=dtype)
        except Exception:                       # another Paddle's kernel: whatever it raises, this is not the way
            continue
        # the first step of Adam is the rate, against the gradient's sign
        if np.allclose(tensors[0][0].numpy(), 2.0 * (1 - 0.25 * 0.125) + 0.25, rtol=1e-5):
            return dtype
    return None
