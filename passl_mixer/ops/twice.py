"""Operators of Paddle whose gradients Paddle cannot differentiate (3.3.1, 2.6.2), in forms that can be.

Each computes what Paddle's does, by Paddle's kernels. All but flatten do so where ``ops.usable(x)``; elsewhere, and in
programs, they are Paddle's, which says that an operator "doesn't have any grad op" when asked for a second derivative.
"""
import functools
import math
from typing import Callable

import paddle
import paddle.nn.functional as F

from passl_mixer.ops.cpu import GELUS, gelu_slope, usable
from passl_mixer.ops.gradients import apply


def flatten(x, start: int, stop: int):
    """``x.flatten(start, stop)``; axes from 0 on."""
    if not paddle.in_dynamic_mode():
        return x.flatten(start, stop)
    shape = x.shape
    return x.reshape([*shape[:start], math.prod(shape[start:stop + 1]), *shape[stop + 1:]])


def _own_graph(function: Callable, x) -> tuple:
    """A copy of ``x`` that shares its memory, and the function of it, with a graph of their own."""
    copy = x.detach()
    copy.stop_gradient = False
    with paddle.enable_grad():
        return copy, function(copy)


class _ByPaddle:
    """A function of Paddle's; the first gradient is Paddle's too, by a pass through a graph that holds nothing else."""

    @staticmethod
    def forward(ctx, x, function, gradient):
        if not any(ctx.wanted):
            return function(x)
        ctx.x, ctx.function, ctx.gradient, ctx.graph = x, function, gradient, _own_graph(function, x)
        return ctx.graph[1].detach()

    @staticmethod
    def gradients(ctx, dy):
        copy, y = ctx.graph or _own_graph(ctx.function, ctx.x)
        ctx.graph = None                        # one graph serves one pass
        paddle.autograd.backward([y], [dy])
        return [copy.grad]

    @staticmethod
    def plain_gradients(ctx, dy):
        return [ctx.gradient(ctx.x, dy)]


def softmax(x, axis: int):
    """Softmax over one axis."""
    if not usable(x):
        return F.softmax(x, axis)

    def gradient(x, dy):
        y = softmax(x, axis)
        return y * (dy - (dy * y).sum(axis, keepdim=True))
    return apply(_ByPaddle, [x], functools.partial(F.softmax, axis=axis), gradient)


def gelu(x, act: str):
    """GELU, act "gelu" (erf) or "gelu_tanh", by Paddle."""
    function = functools.partial(F.gelu, approximate=act == "gelu_tanh")
    return apply(_ByPaddle, [x], function, lambda x, dy: dy * gelu_slope(x, GELUS[act])) if usable(x) else function(x)


class _Roll:
    @staticmethod
    def forward(ctx, x, shifts, axes):
        ctx.shifts, ctx.axes = shifts, axes
        return paddle.roll(x, shifts, axes)

    @staticmethod
    def gradients(ctx, dy):
        return [roll(dy, [-shift for shift in ctx.shifts], ctx.axes)]

    plain_gradients = gradients


def roll(x, shifts, axes):
    """``paddle.roll`` by one shift for each of some axes."""
    return apply(_Roll, [x], list(shifts), list(axes)) if usable(x) else paddle.roll(x, shifts, axes)
