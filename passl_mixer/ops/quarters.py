"""The spatial shift of S2-MLP: quarters of the channels of maps [B, H, W, C] moved by one position each."""
import ctypes
from typing import Sequence

import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator


def shift_quarters(x_bhwc, first_axes: Sequence[int]):
    """Equal shares of the channels, each moved by one position, quarter by quarter.

    Args:
        x_bhwc: [B, H, W, N * C], C a multiple of 4.
        first_axes: for each share the axis, 1 (height) or 2 (width), along which its first two quarters move by +1 and
            -1; the other two move along the other axis. 0: nothing moves.
    Returns:
        N maps [B, H, W, C]; rows that nothing moves into keep their value.
    Source: Yu et al. 2021, arXiv:2106.07477, its pseudo-code; arXiv:2108.01072 for shares.
    """
    return SHIFT_QUARTERS(x_bhwc, first_axes)


def _shift_quarters(x_bhwc, first_axes):
    shares = paddle.split(x_bhwc, len(first_axes), axis=-1)
    return [_moved(share, first) for share, first in zip(shares, first_axes)]


def _moved(x_bhwc, first: int):
    if first == 0:
        return x_bhwc
    quarters = paddle.split(x_bhwc, 4, axis=-1)
    axes = (first, first, 3 - first, 3 - first)
    moved = [shift_map(quarter, axis, step) for quarter, axis, step in zip(quarters, axes, (1, -1, 1, -1))]
    return paddle.concat(moved, axis=-1)


def shift_map(x_bhwc, axis: int, step: int):
    """A map moved by one position; the row that nothing moves into keeps its value.

    Args:
        x_bhwc: [B, H, W, C].
        axis: 1 moves along the height, 2 along the width.
        step: +1 makes position i read i - 1 (the first keeps its value), -1 makes it read i + 1 (the last does).
    Returns:
        [B, H, W, C].
    """
    side = x_bhwc.shape[axis]
    if isinstance(side, int) and side == 1:  # a symbol in an exported program
        return x_bhwc
    if axis == 1:
        first, last, others = x_bhwc[:, :1], x_bhwc[:, -1:], (x_bhwc[:, :-1], x_bhwc[:, 1:])
    else:
        first, last, others = x_bhwc[:, :, :1], x_bhwc[:, :, -1:], (x_bhwc[:, :, :-1], x_bhwc[:, :, 1:])
    # Put together from slices: assigning a slice to a slice of the same tensor can smear the first row over all.
    return paddle.concat([first, others[0]] if step > 0 else [others[1], last], axis=axis)


def _integers(values):
    return (ctypes.c_int64 * len(values))(*values)


class _ShiftQuarters:
    @staticmethod
    def forward(ctx, x, first_axes):
        shares = len(first_axes)
        batch, height, width, channels = x.shape
        ctx.first_axes, sizes = first_axes, (shares, batch, height, width, channels // shares)
        y = empty(sizes)
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
        dx = empty([*rest, len(parts) * channels])
        addresses = (ctypes.c_void_p * len(parts))(*(part.data_ptr() for part in parts))
        call("shift_quarters_gradient", addresses, dx, _integers(ctx.first_axes), len(parts), *rest, channels)
        return dx

    @staticmethod
    def gradients(ctx, ddx):
        y = apply(_ShiftQuarters, [ddx], ctx.first_axes)
        return [y] if len(ctx.first_axes) == 1 else y

    plain_gradients = gradients


def _accepts(x_bhwc, first_axes) -> bool:
    return (x_bhwc.ndim == 4 and 0 not in x_bhwc.shape and len(first_axes) > 0
            and x_bhwc.shape[3] % (4 * len(first_axes)) == 0 and all(axis in (0, 1, 2) for axis in first_axes))


def _native_shift_quarters(x_bhwc, first_axes):
    y = apply(_ShiftQuarters, [x_bhwc], list(first_axes))
    return list(y) if len(first_axes) > 1 else [y]


SHIFT_QUARTERS = Operator("shift_quarters", 1, _shift_quarters,
                          native=[Implementation(_accepts, _native_shift_quarters)])
