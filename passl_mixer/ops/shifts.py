"""Positions of maps [B, H, W, C] taken from elsewhere.

Slices have slow gradients on a CPU; the native kernels copy every position once in either direction.
"""
import ctypes
import math
from typing import Sequence

import paddle

from passl_mixer.ops.axes import pad_axis
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator


def _integers(values):
    return (ctypes.c_int64 * len(values))(*values)


def _is_map(x) -> bool:
    return x.ndim == 4 and 0 not in x.shape


def cycle_shift(x_bhwc, axis: int):
    """Channel i read from position 0, +1, -1 along an axis for i % 3 = 0, 1, 2; zero outside the map.

    Args:
        x_bhwc: [B, H, W, C].
        axis: 1 reads along the height, 2 along the width.
    Returns:
        [B, H, W, C].
    Source: Chen et al. 2021, arXiv:2107.10224; official code, cycle_mlp.py, CycleFC.gen_offset for kernels (1, 3) and
        (3, 1).
    """
    return CYCLE_SHIFT(x_bhwc, axis)


def _cycle_shift(x_bhwc, axis: int):
    height, width, channels = x_bhwc.shape[1:]
    rounded = -(-channels // 3) * 3
    x_bhwc = pad_axis(x_bhwc, 3, 0, rounded - channels)
    padded = pad_axis(x_bhwc, axis, 1, 1)
    after, before = (padded[:, 2:], padded[:, :-2]) if axis == 1 else (padded[:, :, 2:], padded[:, :, :-2])
    threes = [x.reshape([-1, height, width, rounded // 3, 3]) for x in (x_bhwc, after, before)]
    y = paddle.concat([threes[k][:, :, :, :, k:k + 1] for k in (0, 1, 2)], axis=-1)
    return y.reshape([-1, height, width, rounded])[:, :, :, :channels]


class _CycleShift:
    @staticmethod
    def forward(ctx, x_bhwc, axis, sign):
        ctx.axis, ctx.sign, y_bhwc = axis, sign, empty(x_bhwc.shape)
        call("cycle_shift", dense(x_bhwc), y_bhwc, *x_bhwc.shape, axis, sign)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_CycleShift, [dy], ctx.axis, -ctx.sign)]

    plain_gradients = gradients


CYCLE_SHIFT = Operator("cycle_shift", 1, _cycle_shift, native=[Implementation(
    lambda x, axis: _is_map(x) and axis in (1, 2), lambda x, axis: apply(_CycleShift, [x], axis, 1))])


def take(x, places: Sequence[int], axis: int):
    """``x`` at some places of one axis.

    Args:
        x: [...], any shape.
        places: integers from 0 on; a place may be taken more than once or never.
        axis: from 0 on.
    Returns:
        The shape of ``x``, the axis as long as ``places``.
    """
    return TAKE(x, places, axis)


def _take(x, places, axis: int):
    """Slices of what lies together, side by side."""
    breaks = [i for i in range(1, len(places)) if places[i] != places[i - 1] + 1]
    parts = [paddle.slice(x, [axis], [places[start]], [places[stop - 1] + 1])
             for start, stop in zip([0, *breaks], [*breaks, len(places)])]
    return parts[0] if len(parts) == 1 else paddle.concat(parts, axis=axis)


def _sizes(shape, axis: int, count: int) -> tuple:
    """Numbers before the axis, along it in what is taken from and in what is taken, and after it."""
    return math.prod(shape[:axis]), shape[axis], count, math.prod(shape[axis + 1:])


class _Take:
    @staticmethod
    def forward(ctx, x, places, axis):
        ctx.places, ctx.axis, ctx.shape = places, axis, x.shape
        y = empty([*x.shape[:axis], len(places), *x.shape[axis + 1:]])
        call("take", dense(x), _integers(places), y, *_sizes(x.shape, axis, len(places)))
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_PutBack, [dy], ctx.places, ctx.axis, ctx.shape)]

    plain_gradients = gradients


class _PutBack:
    @staticmethod
    def forward(ctx, dy, places, axis, shape):
        ctx.places, ctx.axis, dx = places, axis, empty(shape)
        call("take_gradient", dense(dy), _integers(places), dx, *_sizes(shape, axis, len(places)))
        return dx

    @staticmethod
    def gradients(ctx, ddx):
        return [apply(_Take, [ddx], ctx.places, ctx.axis)]

    plain_gradients = gradients


def _accepts_take(x, places, axis) -> bool:
    return (0 <= axis < x.ndim and 0 not in x.shape and len(places) > 0
            and 0 <= min(places) and max(places) < x.shape[axis])


TAKE = Operator("take", 1, _take,
                native=[Implementation(_accepts_take, lambda x, places, axis: apply(_Take, [x], list(places), axis))])


def move_groups(x_bhwc, axis: int, offsets: Sequence[int]):
    """Groups of channels moved by one offset each along an axis, zero outside the map.

    Args:
        x_bhwc: [B, H, W, C].
        axis: 1 moves along the height, 2 along the width.
        offsets: positions that each group moves by; a group has ceil(C / len(offsets)) channels, the last one what is
            left; groups beyond C do not exist.
    Returns:
        [B, H, W, C]; position p of a group is position p - offset of the input, or 0.
    """
    return MOVE_GROUPS(x_bhwc, axis, offsets)


def _move_groups(x_bhwc, axis: int, offsets):
    width, reach = x_bhwc.shape[-1], max(map(abs, offsets))
    size = -(-width // len(offsets))
    padded, whole = pad_axis(x_bhwc, axis, reach, reach), slice(None)
    # One slice a group, of both axes: a split of the channels before it takes Paddle's CPU three times as long.
    # A negative or open end instead of a length: heights and widths may be unknown in a program.
    return paddle.concat([padded[(*[whole] * axis, slice(reach - offset, -(reach + offset) or None),
                                  *[whole] * (2 - axis), slice(start, min(start + size, width)))]
                          for start, offset in zip(range(0, width, size), offsets)], -1)


class _MoveGroups:
    @staticmethod
    def forward(ctx, x, axis, offsets):
        ctx.axis, ctx.offsets, y = axis, offsets, empty(x.shape)
        call("move_groups", dense(x), y, _integers(offsets), -(-x.shape[-1] // len(offsets)), *x.shape, axis)
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_MoveGroups, [dy], ctx.axis, [-offset for offset in ctx.offsets])]

    plain_gradients = gradients


MOVE_GROUPS = Operator("move_groups", 1, _move_groups, native=[Implementation(
    lambda x, axis, offsets: _is_map(x) and axis in (1, 2) and len(offsets) > 0,
    lambda x, axis, offsets: apply(_MoveGroups, [x], axis, list(offsets)))])


def roll(x, shifts: Sequence[int], axes: Sequence[int]):
    """Places of some axes moved round: what leaves at one end comes in at the other.

    Args:
        x: [...], any shape.
        shifts: positions to move by, one for each of ``axes``.
        axes: from 0 on.
    Returns:
        The shape of ``x``.
    """
    return ROLL(x, shifts, axes)


class _Roll:
    """By Paddle, which cannot differentiate its gradient."""

    @staticmethod
    def forward(ctx, x, shifts, axes):
        ctx.shifts, ctx.axes = shifts, axes
        return paddle.roll(x, shifts, axes)

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Roll, [dy], [-shift for shift in ctx.shifts], ctx.axes)]

    plain_gradients = gradients


def _roll(x, shifts, axes):
    return apply(_Roll, [x], list(shifts), list(axes))


ROLL = Operator("roll", 1, _roll, gpu=paddle.roll, program=paddle.roll)
