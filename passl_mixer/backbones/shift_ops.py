"""Positions of maps [B, H, W, C] taken from elsewhere on a CPU, by compiled passes: slices have slow gradients there.

For tensors that are ``ops.compiled``; not differentiable twice.
"""
import ctypes
import math

import paddle
from paddle.autograd import PyLayer

from passl_mixer.backbones.ops import call, dense


def _integers(values):
    return (ctypes.c_int64 * len(values))(*values)


class _Take(PyLayer):
    @staticmethod
    def forward(ctx, x, places, axis):
        ctx.places, ctx.axis, ctx.shape = places, axis, x.shape
        y = paddle.empty([*x.shape[:axis], len(places), *x.shape[axis + 1:]])
        call("take", dense(x), _integers(places), y, *_Take.sizes(ctx))
        return y

    @staticmethod
    def backward(ctx, grad):
        dx = paddle.empty(ctx.shape)
        call("take_gradient", dense(grad), _integers(ctx.places), dx, *_Take.sizes(ctx))
        return dx

    @staticmethod
    def sizes(ctx) -> tuple:
        """Numbers before the axis, along it in x and in y, and after it."""
        shape, axis = ctx.shape, ctx.axis
        return math.prod(shape[:axis]), shape[axis], len(ctx.places), math.prod(shape[axis + 1:])


def take(x, places, axis: int):
    """``x`` at ``places``, integers from 0 on, of one axis; a place may be taken more than once or never."""
    return _Take.apply(x, list(places), axis)


def move_groups(x, axis: int, offsets):
    """Groups of ceil(C / len(offsets)) channels of [B, H, W, C] moved by their offsets along axis 1 or 2, zero outside.

    Without a gradient; that is the move by the negative offsets.
    """
    y = paddle.empty(x.shape)
    call("move_groups", dense(x), y, _integers(offsets), -(-x.shape[-1] // len(offsets)), *x.shape, axis)
    return y


class _ShiftQuarters(PyLayer):
    @staticmethod
    def forward(ctx, x, first_axes):
        shares = len(first_axes)
        batch, height, width, channels = x.shape
        ctx.first_axes, ctx.sizes = first_axes, (shares, batch, height, width, channels // shares)
        y = paddle.empty(ctx.sizes)
        call("shift_quarters", dense(x), y, _integers(first_axes), *ctx.sizes)
        return tuple(y.unbind(axis=0)) if shares > 1 else y[0]

    @staticmethod
    def backward(ctx, *gradients):
        gradients = [dense(gradient) for gradient in gradients]
        shares, *rest, channels = ctx.sizes
        dx = paddle.empty([*rest, shares * channels])
        addresses = (ctypes.c_void_p * shares)(*(gradient.data_ptr() for gradient in gradients))
        call("shift_quarters_gradient", addresses, dx, _integers(ctx.first_axes), *ctx.sizes)
        return dx


def shift_quarters(x, first_axes):
    """Equal shares of the channels of ``x``, each moved by one position, quarter by quarter.

    Args:
        x: [B, H, W, N * C].
        first_axes: for each share the axis, 1 (height) or 2 (width), along which its first two quarters move by +1 and
            -1; the other two move along the other axis. 0: nothing moves.
    Returns:
        N maps [B, H, W, C], or the map where N is 1; rows that nothing moves into keep their value.
    """
    return _ShiftQuarters.apply(x, list(first_axes))
