"""One table of operators: every operator has a reference of Paddle's own operators, and quicker implementations.

``choose`` is the one place that asks for the device, the mode and the dtype of a call. A column of the table is a kind
of machine:

| column | calls it serves |
|---|---|
| native | eager, on a CPU, every tensor float32, the native kernels built |
| bf16 | the same under ``paddle.amp.auto_cast(dtype="bfloat16")``, where the processor is quick at it; then native |
| gpu | eager on a GPU, and programs that are traced for one |
| program | programs that are traced for any other device |
| (reference) | everything else: other dtypes, mixed dtypes, other devices, ``PASSL_MIXER_NATIVE=0`` |

An implementation says what it can compute (``accepts``). Where it cannot, the reference runs, and raises Paddle's own
error where Paddle cannot either.
"""
import functools
from typing import Callable, NamedTuple, Optional, Sequence, Tuple, Union

import paddle
from paddle.amp.auto_cast import amp_state

from passl_mixer.ops import native

# dtype of every tensor of an eager call on a CPU -> column; under autocast to bfloat16 -> another
CPU_COLUMNS = {paddle.float32: "native"}
AUTOCAST_COLUMNS = {"native": "bf16"}


class Implementation(NamedTuple):
    """One way to compute an operator.

    Args:
        accepts: says for the arguments of a call whether ``run`` can compute it; looks at shapes and options only.
        run: computes it; takes and gives what the reference does.
    """

    accepts: Callable[..., bool]
    run: Callable


def always(*_arguments) -> bool:
    """``accepts`` of an implementation that computes every call."""
    return True


class Operator:
    """A row of the table; called with the arguments of its reference, all by position.

    Args:
        name: of the public function.
        tensors: number of leading arguments that are tensors, lists of tensors or None; the others are options.
        reference: computes every call that Paddle can compute, by Paddle's operators, on any device.
        native: implementations by the native kernels, the first that accepts a call computes it.
        bf16: implementations with products in bfloat16; take and give float32. Where none accepts a call, native does.
        gpu: function for GPUs.
        program: function, or implementation, for static programs.
    """

    def __init__(self, name: str, tensors: int, reference: Callable, *, native: Sequence[Implementation] = (),
                 bf16: Sequence[Implementation] = (), gpu: Optional[Callable] = None,
                 program: Union[Callable, Implementation, None] = None):
        self.name, self.tensors, self.reference = name, tensors, reference
        self.columns = {"native": tuple(native), "bf16": (*bf16, *native), "gpu": _one(gpu), "program": _one(program)}

    def __call__(self, *arguments):
        run = choose(self, arguments)           # a name of its own: so Paddle's tracer goes into the function
        return run(*arguments)


def _one(implementation) -> Tuple[Implementation, ...]:
    if implementation is None:
        return ()
    return (implementation if isinstance(implementation, Implementation) else Implementation(always, implementation),)


@paddle.jit.not_to_static                   # runs as it stands where a network is traced
def choose(operator: Operator, arguments: Sequence) -> Callable:
    """The function that computes a call of an operator: of its column the first that accepts it, or the reference."""
    for implementation in operator.columns.get(column_of(operator, arguments), ()):
        if implementation.accepts(*arguments):
            return implementation.run
    return operator.reference


def column_of(operator: Operator, arguments: Sequence) -> Optional[str]:
    """The column that serves a call; None for the reference."""
    if not paddle.in_dynamic_mode():
        return "gpu" if paddle.get_device().startswith("gpu") else "program"
    place = dtype = None
    for argument in arguments[:operator.tensors]:
        for tensor in argument if isinstance(argument, (list, tuple)) else (argument,):
            if tensor is None:
                continue
            if dtype is None:
                place, dtype = tensor.place, tensor.dtype
            elif tensor.dtype != dtype:
                return "gpu" if place.is_gpu_place() else None
    if place.is_gpu_place():
        return "gpu"
    column = CPU_COLUMNS.get(dtype) if place.is_cpu_place() and native.load() is not None else None
    return AUTOCAST_COLUMNS.get(column, column) if autocasts_to_bf16() and native.has_bf16() else column


def autocasts_to_bf16() -> bool:
    """Whether ``paddle.amp.auto_cast(dtype="bfloat16")`` is on.

    On a CPU, where Paddle's own operators know no autocast, it is on for ours. Paddle notes what was asked for.
    """
    state = amp_state()
    return (state is not None and state["enable"] and str(state["dtype"]).lower().endswith("bfloat16")
            and state["level"] != "O0")


def prefers_nhwc(x) -> bool:
    """Whether convolutions of maps like ``x`` are quicker as [B, H, W, C], where a network may have it either way."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place() and x.dtype in CPU_COLUMNS and native.load() is not None


def computes_in_bf16(x) -> bool:
    """Whether products and convolutions of x [...] would run in bfloat16 on a CPU, where maps are best [B, H, W, C]."""
    return paddle.in_dynamic_mode() and prefers_nhwc(x) and autocasts_to_bf16() and native.has_bf16()


def readable_at_once(x) -> bool:
    """Whether the host reads the numbers of x [...] without waiting for a device."""
    return x.place.is_cpu_place()


@functools.lru_cache(maxsize=64)
def _kept(make: Callable, _device: str, *options):
    return make(*options)


def constant(make: Callable, *options):
    """``make(*options)``, which a device gets once, not at every pass, and every program of its own.

    Args:
        make: gives a tensor without gradient.
        options: what can be a dictionary's key.
    """
    return _kept(make, paddle.get_device(), *options) if paddle.in_dynamic_mode() else make(*options)
