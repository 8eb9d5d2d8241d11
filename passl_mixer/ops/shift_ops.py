"""Positions of maps [B, H, W, C] taken from elsewhere on a CPU, by compiled passes: slices have slow gradients there.

For tensors that are ``ops.compiled``.
"""
import ctypes
import math

import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


def _integers(values):
    return (ctypes.c_int64 * len(values))(*values)


def _sizes(shape, axis: int, count: int) -> tuple:
    """Numbers before the axis, along it in what is taken from and in what is taken, and after it."""
    return math.prod(shape[:axis]), shape[axis], count, math.prod(shape[axis + 1:])


class _Take:
    @staticmethod
    def forward(ctx, x, places, axis):
        ctx.places, ctx.axis, ctx.shape = places, axis, x.shape
        y = paddle.empty([*x.shape[:axis], len(places), *x.shape[axis + 1:]])
        call("take", dense(x), _integers(places), y, *_sizes(x.shape, axis, len(places)))
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_PutBack, [dy], ctx.places, ctx.axis, ctx.shape)]

    plain_gradients = gradients


class _PutBack:
    @staticmethod
    def forward(ctx, dy, places, axis, shape):
        ctx.places, ctx.axis, dx = places, axis, paddle.empty(shape)
        call("take_gradient", dense(dy), _integers(places), dx, *_sizes(shape, axis, len(places)))
        return dx

    @staticmethod
    def gradients(ctx, ddx):
        return [take(ddx, ctx.places, ctx.axis)]

    plain_gradients = gradients


def take(x, places, axis: int):
    """``x`` at ``places``, integers from 0 on, of one axis; a place may be taken more than once or never."""
    return apply(_Take, [x], list(places), axis)


class _MoveGroups:
    @staticmethod
    def forward(ctx, x, axis, offsets):
        ctx.axis, ctx.offsets, y = axis, offsets, paddle.empty(x.shape)
        call("move_groups", dense(x), y, _integers(offsets), -(-x.shape[-1] // len(offsets)), *x.shape, axis)
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [move_groups(dy, ctx.axis, [-offset for offset in ctx.offsets])]

    plain_gradients = gradients


def move_groups(x, axis: int, offsets):
    """Groups of ceil(C / len(offsets)) channels of [B, H, W, C] moved by their offsets along an axis, zero outside.

    Args:
        axis: 1 moves along the height, 2 along the width.
    """
    return apply(_MoveGroups, [x], axis, list(offsets))


class _ShiftQuarters:
    @staticmethod
    def forward(ctx, x, first_axes):
        shares = len(first_axes)
        batch, height, width, channels = x.shape
        ctx.first_axes, sizes = first_axes, (shares, batch, height, width, channels // shares)
        y = paddle.empty(sizes)
        call("shift_quarters", dense(x), y, _integers(first_axes), *sizes)
        return tuple(y.unbind(axis=0)) if shares > 1 else y[0]

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_ShiftBack, [dy] if len(ctx.first_axes) == 1 else dy, ctx.first_axes)]

    plain_gradients = gradients


class _ShiftBack:
    @staticmethod
    def forward(ctx, *parts_and_axes):
        *parts, ctx.first_axes = parts_and_axes
        parts = [dense(part) for part in parts]
        *rest, channels = parts[0].shape
        dx = paddle.empty([*rest, len(parts) * channels])
        addresses = (ctypes.c_void_p * len(parts))(*(part.data_ptr() for part in parts))
        call("shift_quarters_gradient", addresses, dx, _integers(ctx.first_axes), len(parts), *rest, channels)
        return dx

    @staticmethod
    def gradients(ctx, ddx):
        found = shift_quarters(ddx, ctx.first_axes)
        return [found] if len(ctx.first_axes) == 1 else found

    plain_gradients = gradients


def shift_quarters(x, first_axes):
    """Equal shares of the channels of ``x``, each moved by one position, quarter by quarter.

    Args:
        x: [B, H, W, N * C].
        first_axes: for each share the axis, 1 (height) or 2 (width), along which its first two quarters move by +1 and
            -1; the other two move along the other axis. 0: nothing moves.
    Returns:
        N maps [B, H, W, C], or the map where N is 1; rows that nothing moves into keep their value.
    """
    return apply(_ShiftQuarters, [x], list(first_axes))
