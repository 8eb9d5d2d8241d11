"""Paddle's autocast of level O1, on a CPU: Paddle turns it off there, and has no kernels for bfloat16.

float64 stands for the low type. Every operator's inputs are cast by Paddle's own rule and lists (``paddle.amp``), and
results of the low type are rounded to bfloat16 or float16 and stored in float64; gradients likewise, where they pass a
cast. So types meet each other where they would on a GPU, Paddle refuses what it would refuse there, and numbers lose
what they would lose.

The rule (Paddle's ``imperative/amp_utils.h``): operators of the white list compute in the low type, those of the black
list in float32, the others in float32 if one of their inputs has it, norms as their first input is. Operators in place
and casts are left alone.
"""
import contextlib
import functools

import paddle
from paddle import _C_ops
from paddle.base import core

from passl_mixer.ops import table

LOW, FULL = paddle.float64, paddle.float32
NORMS = ("batch_norm", "batch_norm_", "layer_norm")
# Operators that Tensor's methods reach without ``paddle._C_ops``.
METHODS = {"__add__": "add", "__radd__": "add", "__sub__": "subtract", "__rsub__": "subtract", "__mul__": "multiply",
           "__rmul__": "multiply", "__truediv__": "divide", "__rtruediv__": "divide", "__matmul__": "matmul",
           "__pow__": "elementwise_pow"}


def take_branches_of_a_gpu(monkeypatch) -> None:
    """Let operators compute as they do on a GPU: by Paddle's operators, products fused, maps as they lie."""
    monkeypatch.setattr(table, "column_of", lambda operator, arguments: "gpu")
    monkeypatch.setattr(table.native, "load", lambda: None)        # for ``prefers_nhwc``


def _kernels(operators) -> set:
    """Operators by their older and their newer names."""
    return set(operators) | {core._get_phi_kernel_name(name) for name in operators}


def _floats(value) -> list:
    """The floating-point tensors in an argument."""
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _floats(item)]
    return [value] if paddle.is_tensor(value) and value.dtype in (LOW, FULL) else []


def _each(value, change):
    """An argument or result with ``change`` applied to its floating-point tensors."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    return change(value) if _floats(value) else value


class Autocast:
    """Stands in the place of ``paddle.amp.auto_cast`` after ``install``.

    Args:
        dtype: "bfloat16" or "float16".
    Attributes:
        computed: operator -> types it computed in, LOW and FULL.
    """

    def __init__(self, dtype: str):
        self.dtype, self.computed, self._on = dtype, {}, False
        # F.linear is fused on a GPU: linear_v2 or fused_gemm_epilogue, both of the white list.
        self._white = _kernels(paddle.amp.amp_lists.white_list()[dtype]["O1"]) | {"linear"}
        self._black = _kernels(paddle.amp.amp_lists.black_list()[dtype]["O1"])

    def install(self, monkeypatch) -> "Autocast":
        for name in dir(_C_ops):
            operator = getattr(_C_ops, name)
            in_place = name.endswith("_") and name not in NORMS
            if callable(operator) and not (name.startswith("_") or in_place or name == "cast"):
                monkeypatch.setattr(_C_ops, name, self._casting(name, operator))
        for method, name in METHODS.items():
            monkeypatch.setattr(paddle.Tensor, method, self._casting(name, getattr(paddle.Tensor, method)))
        monkeypatch.setattr(paddle.amp, "auto_cast", self._guard)
        return self

    @contextlib.contextmanager
    def _switched(self, on: bool):
        before, self._on = self._on, on
        try:
            yield
        finally:
            self._on = before

    def _guard(self, enable: bool = True, dtype: str = "", level: str = "O1"):
        assert not enable or (dtype, level) == (self.dtype, "O1")
        return self._switched(enable)

    def _type_of(self, name: str, inputs: list):
        if name in self._white:
            return LOW
        looked_at = inputs[:1] if name in NORMS else inputs
        return FULL if name in self._black or any(tensor.dtype == FULL for tensor in looked_at) else LOW

    def _rounded(self, tensor):
        return tensor.astype(self.dtype).astype(LOW)

    def _casting(self, name: str, operator):
        @functools.wraps(operator)
        def computed(*given, **named):
            inputs = _floats(given) + _floats(list(named.values()))
            if not self._on or not inputs:
                return operator(*given, **named)
            with self._switched(False):
                dtype = self._type_of(name, inputs)
                self.computed.setdefault(name, set()).add(dtype)
                # Norms of low maps compute in float32 on a GPU, with float32 parameters; only the map is low.
                inside = FULL if name in NORMS else dtype
                low_inside = self._rounded if inside == LOW else lambda tensor: tensor.astype(FULL)
                cast = functools.partial(_each, change=lambda t: t if t.dtype == inside else low_inside(t))
                found = operator(*(cast(v) for v in given), **{k: cast(v) for k, v in named.items()})
                if dtype == FULL:
                    return found
                if name in NORMS and isinstance(found, (list, tuple)):
                    return type(found)([self._rounded(found[0]), *found[1:]])
                return _each(found, self._rounded)
        return computed
