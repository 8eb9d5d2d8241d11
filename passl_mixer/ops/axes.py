"""Axes in another order, joined, parted or longer.

Paddle copies transposed views, and parts and joins channels, on one thread of a CPU.
"""
import ctypes
import itertools
import math

import paddle
import paddle.nn.functional as F

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator
from passl_mixer.ops.twice import differentiable_twice

MOST_AXES = 8       # of the native kernel


def permute(x, axes):
    """The axes of ``x`` in another order, as ``x.transpose(axes)``.

    Args:
        x: [...], any shape; at most 8 axes for the native kernel.
        axes: for every axis of the result its number in ``x``.
    Returns:
        A view or a copy.
    """
    return PERMUTE(x, axes)


def _transpose(x, axes):
    return x.transpose(axes)


def _permuted(x, axes):
    x = dense(x)
    steps = [*itertools.accumulate(x.shape[:0:-1], lambda step, size: step * size, initial=1)][::-1]
    sizes = [x.shape[axis] for axis in axes]
    y = empty(sizes, x.dtype)
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


def _accepts_permute(x, axes) -> bool:
    return 0 < x.ndim <= MOST_AXES and 0 not in x.shape and sorted(axes) == list(range(x.ndim))


PERMUTE = Operator("permute", 1, _transpose,
                   native=[Implementation(_accepts_permute, lambda x, axes: apply(_Permute, [x], list(axes)))])


def flatten(x, start: int, stop: int):
    """Some neighbouring axes as one. Paddle's own has no second derivative (3.3.1, 2.6.2).

    Args:
        x: [...], any shape.
        start, stop: the first and the last of these axes, from 0 on.
    Returns:
        A tensor with ``stop - start`` axes less.
    """
    return FLATTEN(x, start, stop)


def _reshaped(x, start: int, stop: int):
    shape = x.shape
    return x.reshape([*shape[:start], math.prod(shape[start:stop + 1]), *shape[stop + 1:]])


def _paddle_flatten(x, start: int, stop: int):
    return x.flatten(start, stop)


FLATTEN = Operator("flatten", 1, _reshaped, program=_paddle_flatten)


def halves(x):
    """The first and the second half of the last axis.

    Args:
        x: [..., 2 C].
    Returns:
        Two tensors [..., C].
    """
    return HALVES(x)


def _chunk(x):
    return x.chunk(2, axis=-1)


def _rows(shape) -> tuple:
    """``(rows, half)`` of [..., 2 * half]."""
    return math.prod(shape[:-1]), shape[-1] // 2


class _Halves:
    @staticmethod
    def forward(ctx, x):
        parts = [empty([*x.shape[:-1], x.shape[-1] // 2]) for _ in range(2)]
        call("split_halves", dense(x), *parts, *_rows(x.shape))
        return tuple(parts)

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Join, dy)]

    plain_gradients = gradients


class _Join:
    @staticmethod
    def forward(ctx, *parts):
        y = empty([*parts[0].shape[:-1], 2 * parts[0].shape[-1]])
        call("join_halves", *map(dense, parts), y, *_rows(y.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        return apply(_Halves, [dy])

    plain_gradients = gradients


HALVES = Operator("halves", 1, _chunk, native=[Implementation(
    lambda x: 0 not in x.shape and x.ndim > 0 and x.shape[-1] % 2 == 0, lambda x: apply(_Halves, [x]))])


def pad_axis(x, axis: int, before: int, after: int):
    """Zeros around a tensor along one axis.

    Args:
        x: [...], any shape.
        axis: from 0 on.
        before, after: number of zeros at either end, 0 or more; negative numbers are no padding.
    Returns:
        The shape of ``x``, ``before + after`` longer along the axis.
    """
    return PAD_AXIS(x, axis, before, after) if before or after else x


def _padded(x, axis: int, before: int, after: int):
    sides = [0] * (2 * x.ndim)
    sides[2 * axis], sides[2 * axis + 1] = before, after
    return F.pad(x, sides)


def _joined_with_zeros(x, axis: int, before: int, after: int):
    """Zeros by concatenation, for programs.

    If oneDNN pads anything but [B, C, H, W], it throws or damages the memory of the process (Paddle 3.3.1 and 2.6.2).
    ``F.pad`` is quicker where a network does without oneDNN (CycleMLP's export).
    """
    shape = x.shape

    def zeros(length: int) -> list:
        return [paddle.zeros([*shape[:axis], length, *shape[axis + 1:]], x.dtype)] if length else []
    return paddle.concat([*zeros(before), x, *zeros(after)], axis=axis)


PAD_AXIS = Operator("pad_axis", 1, _padded, program=_joined_with_zeros)


def gather_rows(table, index):
    """Rows of a table.

    Args:
        table: [R, C].
        index: int64 [N], from 0 to R - 1; a row may be taken more than once or never.
    Returns:
        [N, C].
    """
    return GATHER_ROWS(table, index)


def _gather_rows(table, index):
    """Paddle 2.6 has no second derivative of its own."""
    def gradients(table, dy):
        return [paddle.matmul(F.one_hot(index, table.shape[0]).astype(dy.dtype), dy, transpose_x=True)]
    return differentiable_twice(lambda rows: paddle.gather(rows, index), [table], gradients)


GATHER_ROWS = Operator("gather_rows", 1, _gather_rows, gpu=paddle.gather, program=paddle.gather)
