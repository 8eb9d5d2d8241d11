"""Axes in another order on a CPU, by a compiled pass: Paddle copies such views element by element on one thread.

For tensors that are ``ops.compiled``.
"""
import ctypes
import itertools

import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


def _permuted(x, axes):
    x = dense(x)
    steps = [*itertools.accumulate(x.shape[:0:-1], lambda step, size: step * size, initial=1)][::-1]
    sizes = [x.shape[axis] for axis in axes]
    y = paddle.empty(sizes, x.dtype)
    arrays = ((ctypes.c_int64 * len(axes))(*numbers) for numbers in (sizes, [steps[axis] for axis in axes]))
    call("permute", x, y, *arrays, len(axes))
    return y


class _Permute:
    @staticmethod
    def forward(ctx, x, axes):
        ctx.axes = axes
        return _permuted(x, axes)

    @staticmethod
    def gradients(ctx, dy):
        return [permute(dy, sorted(range(len(ctx.axes)), key=ctx.axes.__getitem__))]

    plain_gradients = gradients


def permute(x, axes):
    """``x.transpose(axes)`` as a tensor of its own, not a view."""
    return apply(_Permute, [x], list(axes))
