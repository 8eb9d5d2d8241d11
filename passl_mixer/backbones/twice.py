"""Operators of Paddle whose gradients Paddle cannot differentiate (3.3.1, 2.6.2), in forms that can be.

Each computes what Paddle's does, by Paddle's kernels. Softmax and roll do so where ``ops.usable(x)``; elsewhere, and in
programs, they are Paddle's, which says that an operator "doesn't have any grad op" when asked for a second derivative.
"""
import math

import paddle
import paddle.nn.functional as F

from passl_mixer.backbones.ops import usable
from passl_mixer.gradients import apply


def flatten(x, start: int, stop: int):
    """``x.flatten(start, stop)``; axes from 0 on."""
    if not paddle.in_dynamic_mode():
        return x.flatten(start, stop)
    shape = x.shape
    return x.reshape([*shape[:start], math.prod(shape[start:stop + 1]), *shape[stop + 1:]])


def _own_graph(x, axis: int) -> tuple:
    """A copy of ``x`` that shares its memory, and its softmax, with a graph of their own."""
    copy = x.detach()
    copy.stop_gradient = False
    with paddle.enable_grad():
        return copy, F.softmax(copy, axis)


class _Softmax:
    """Its first gradient is Paddle's, by a pass through a graph that holds nothing else."""

    @staticmethod
    def forward(ctx, x, axis):
        if not any(ctx.wanted):
            return F.softmax(x, axis)
        ctx.x, ctx.axis, ctx.graph = x, axis, _own_graph(x, axis)
        return ctx.graph[1].detach()

    @staticmethod
    def gradients(ctx, dy):
        copy, y = ctx.graph or _own_graph(ctx.x, ctx.axis)
        ctx.graph = None                        # one graph serves one pass
        paddle.autograd.backward([y], [dy])
        return [copy.grad]

    @staticmethod
    def plain_gradients(ctx, dy):
        y = softmax(ctx.x, ctx.axis)
        return [y * (dy - (dy * y).sum(ctx.axis, keepdim=True))]


def softmax(x, axis: int):
    """Softmax over one axis."""
    return apply(_Softmax, [x], axis) if usable(x) else F.softmax(x, axis)


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
