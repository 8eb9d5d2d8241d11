"""Activations and softmax.

Paddle's backward pass of GELU runs on one thread of a CPU and has no second derivative; the native kernels use every
core, and every operator says its gradient twice (``gradients.py``).
"""
import functools
import math
from typing import Optional

import paddle
import paddle.nn.functional as F

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator
from passl_mixer.ops.twice import differentiable_twice

GELUS = {"gelu": "erf", "gelu_tanh": "tanh"}      # act -> name of the native kernels


def activate(x, act: Optional[str]):
    """An activation of every element.

    Args:
        x: [...], any shape.
        act: "gelu" (by erf), its approximations "gelu_tanh" and "quick_gelu", "relu", or None for ``x`` itself.
    Returns:
        The shape of ``x``.
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; "quick_gelu": openai/CLIP, model.py.
    """
    return ACTIVATE(x, act) if act is not None else x


def _paddle_activation(x, act: str):
    if act == "relu":
        return F.relu(x)
    if act == "quick_gelu":
        return x * F.sigmoid(1.702 * x)
    return F.gelu(x, act == "gelu_tanh")


def _activation(x, act: str):
    if act not in GELUS:
        return _paddle_activation(x, act)
    return differentiable_twice(functools.partial(F.gelu, approximate=act == "gelu_tanh"), [x],
                                lambda x, dy: [dy * gelu_slope(x, act)])


def gelu_slope(x, act: str):
    """The derivative of GELU at every element of x [...], of its shape, by differentiable operators."""
    near = x.clip(-20.0, 20.0)              # beyond, the second summand is 0 in float32; infinities would be NaN
    if act == "gelu":
        bell = paddle.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
        return 0.5 + 0.5 * paddle.erf(x / math.sqrt(2)) + near * bell
    twice_u = 2 * math.sqrt(2 / math.pi) * (near + 0.044715 * near ** 3)
    slope_of_u = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
    gate = F.sigmoid(twice_u)
    return gate + 2 * near * gate * F.sigmoid(-twice_u) * slope_of_u


class _Gelu:
    @staticmethod
    def forward(ctx, x, act):
        ctx.x, ctx.act = x, act
        y = paddle.empty(x.shape)
        call(f"gelu_{GELUS[act]}_forward", dense(x), y, math.prod(x.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        dx = paddle.empty(dy.shape)
        call(f"gelu_{GELUS[ctx.act]}_gradient", dense(ctx.x), dense(dy), dx, math.prod(dy.shape))
        return [dx]

    @staticmethod
    def plain_gradients(ctx, dy):
        return [dy * gelu_slope(ctx.x, ctx.act)]


ACTIVATE = Operator(
    "activate", 1, _activation, gpu=_paddle_activation, program=_paddle_activation,
    native=[Implementation(lambda x, act: act in GELUS and 0 not in x.shape, lambda x, act: apply(_Gelu, [x], act))])


def softmax(x, axis: int):
    """Softmax over one axis of x [...], any shape; of its shape."""
    return SOFTMAX(x, axis)


def _softmax(x, axis: int):
    def gradients(x, dy):
        y = softmax(x, axis)
        return [y * (dy - (dy * y).sum(axis, keepdim=True))]
    return differentiable_twice(functools.partial(F.softmax, axis=axis), [x], gradients)


SOFTMAX = Operator("softmax", 1, _softmax, gpu=F.softmax, program=F.softmax)
