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
from passl_mixer.ops.memory import empty
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
        y = empty(x.shape)
        call(f"gelu_{GELUS[act]}_forward", dense(x), y, math.prod(x.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        dx = empty(dy.shape)
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


SOFTMAX = Operator("softmax", 1, _softmax, gpu=F.softmax, program=F.softmax, native=[Implementation(
    lambda x, axis: x.ndim > 0 and 0 not in x.shape and axis in (-1, x.ndim - 1),
    lambda x, axis: apply(_ScaledSoftmax, [x, None], 1.0))])


def scaled_softmax(x, bias, scale: float):
    """``softmax(scale * x + bias)`` over the last axis: the weights of attention from its scores.

    Args:
        x: [..., N].
        bias: [..., N], the last axes of ``x``, or what is broadcast to it; None for none.
        scale: a factor, finite.
    Returns:
        The shape of ``x``.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    """
    return SCALED_SOFTMAX(x, bias, scale)


def _scaled_softmax(x, bias, scale: float):
    scores = x * scale
    return softmax(scores if bias is None else scores + bias.astype(scores.dtype), -1)  # autocast lowers products


class _ScaledSoftmax:
    @staticmethod
    def forward(ctx, x, bias, scale):
        ctx.x, ctx.bias, ctx.scale, y = x, bias, scale, empty(x.shape)
        rows, ctx.bias_shape = _score_rows(x, bias), None if bias is None else bias.shape
        call("scaled_softmax", dense(x), None if bias is None else dense(bias), y, *rows, scale)
        ctx.rows, ctx.y = rows, y.detach()
        return y

    @staticmethod
    def gradients(ctx, dy):
        dx, dbias = empty(dy.shape), empty(ctx.bias_shape) if ctx.needs_grad[1] else None
        call("scaled_softmax_gradient", ctx.y, dense(dy), dx, dbias, *ctx.rows, ctx.scale)
        return dx, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        y = _scaled_softmax(ctx.x, ctx.bias, ctx.scale)
        g = y * (dy - (dy * y).sum(-1, keepdim=True))
        return lambda: g * ctx.scale, lambda: g.reshape([-1, *ctx.bias_shape]).sum(0)


def _score_rows(x, bias) -> tuple:
    """``(outer, rows, columns)``: a bias has ``rows`` rows and repeats ``outer`` times; without one any cut will do."""
    rows = math.prod((x.shape if bias is None else bias.shape)[:-1])
    return math.prod(x.shape[:-1]) // rows, rows, x.shape[-1]


def _accepts_scaled_softmax(x, bias, scale) -> bool:
    return (x.ndim > 0 and 0 not in x.shape
            and (bias is None or (0 < bias.ndim <= x.ndim and bias.shape == x.shape[-bias.ndim:])))


SCALED_SOFTMAX = Operator("scaled_softmax", 2, _scaled_softmax, native=[Implementation(
    _accepts_scaled_softmax, lambda x, bias, scale: apply(_ScaledSoftmax, [x, bias], float(scale)))])
