"""Windows of maps for attention: rolled, cut, and parted into heads in one copy, and put back together.

Shapes: B images, H x W positions, W windows of N = side * side positions, h heads of d channels.
"""
import ctypes
import math
from typing import Sequence

from passl_mixer.ops.axes import permute
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.shifts import roll
from passl_mixer.ops.table import Implementation, Operator


def split_windows(x_bhwc, parts: int, num_heads: int, side: int, shifts: Sequence[int]):
    """Parts of the channels of a map, each by window and head.

    Args:
        x_bhwc: [B, H, W, parts * h * d]; H and W are multiples of ``side``.
        parts: such as queries, keys and values; 1 or more.
        num_heads: number of heads h.
        side: positions on a window's side.
        shifts: positions that the map is rolled up and left by before, in [0, H] and [0, W].
    Returns:
        A tuple of ``parts`` tensors [B, (H / side) * (W / side), h, side^2, d].
    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2.
    """
    return SPLIT_WINDOWS(x_bhwc, parts, num_heads, side, shifts)


def join_windows(x_bwhnd, height: int, width: int, side: int, shifts: Sequence[int]):
    """The map of one part of ``split_windows``.

    Args:
        x_bwhnd: [B, (H / side) * (W / side), h, side^2, d].
        height, width: of the map, multiples of ``side``.
        side, shifts: as of ``split_windows``.
    Returns:
        [B, H, W, h * d].
    """
    return JOIN_WINDOWS(x_bwhnd, height, width, side, shifts)


def to_windows(x_bhwc, side: int):
    """Cut [B, H, W, C], H and W multiples of ``side``, into windows [B, (H / side) * (W / side), side^2, C]."""
    _, height, width, channels = x_bhwc.shape
    rows, columns = height // side, width // side
    cut = permute(x_bhwc.reshape([-1, rows, side, columns, side, channels]), [0, 1, 3, 2, 4, 5])
    return cut.reshape([-1, rows * columns, side * side, channels])


def from_windows(x_bwnc, height: int, width: int, side: int):
    """Put the windows of ``to_windows`` back together.

    Args:
        x_bwnc: [B, (height / side) * (width / side), side^2, C].
        height, width, side: of the map, [B, height, width, C], and of a window, in positions.
    """
    rows, columns, channels = height // side, width // side, x_bwnc.shape[-1]
    cut = permute(x_bwnc.reshape([-1, rows, columns, side, side, channels]), [0, 1, 3, 2, 4, 5])
    return cut.reshape([-1, height, width, channels])


def _split_windows(x_bhwc, parts, num_heads, side, shifts):
    if any(shifts):
        x_bhwc = roll(x_bhwc, [-shift for shift in shifts], [1, 2])
    x_bwnc = to_windows(x_bhwc, side)
    windows, positions, channels = x_bwnc.shape[1:]
    heads = x_bwnc.reshape([-1, windows, positions, parts, num_heads, channels // (parts * num_heads)])
    return tuple(permute(heads, [3, 0, 1, 4, 2, 5]).unbind(axis=0))


def _join_windows(x_bwhnd, height, width, side, shifts):
    windows, heads, positions, depth = x_bwhnd.shape[1:]
    x_bwnc = permute(x_bwhnd, [0, 1, 3, 2, 4]).reshape([-1, windows, positions, heads * depth])
    x_bhwc = from_windows(x_bwnc, height, width, side)
    return roll(x_bhwc, list(shifts), [1, 2]) if any(shifts) else x_bhwc


def _addresses(tensors):
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


class _Split:
    """``sizes``: height, width, heads, depth, side, side and shifts, as the native kernels take them."""

    @staticmethod
    def forward(ctx, x, parts, sizes):
        ctx.sizes, (height, width, heads, depth, side, _, *_) = sizes, sizes
        batch = x.shape[0]
        windows = [empty([batch, height * width // side ** 2, heads, side * side, depth]) for _ in range(parts)]
        call("split_windows", dense(x), _addresses(windows), parts, batch, *sizes)
        return tuple(windows) if parts > 1 else windows[0]

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Join, dy if isinstance(dy, (list, tuple)) else [dy], ctx.sizes)]

    plain_gradients = gradients


class _Join:
    @staticmethod
    def forward(ctx, *windows_and_sizes):
        *windows, ctx.sizes = windows_and_sizes
        windows, (height, width, heads, depth, *_) = [dense(part) for part in windows], ctx.sizes
        ctx.parts, batch = len(windows), windows[0].shape[0]
        x = empty([batch, height, width, len(windows) * heads * depth])
        call("join_windows", _addresses(windows), x, len(windows), batch, *ctx.sizes)
        return x

    @staticmethod
    def gradients(ctx, dy):
        y = apply(_Split, [dy], ctx.parts, ctx.sizes)
        return y if isinstance(y, (list, tuple)) else [y]

    plain_gradients = gradients


def _fits(height, width, side, shifts) -> bool:
    return (side > 0 and height % side == width % side == 0 and len(shifts) == 2
            and all(0 <= shift <= length for shift, length in zip(shifts, (height, width))))


def _accepts_split(x_bhwc, parts, num_heads, side, shifts) -> bool:
    return (x_bhwc.ndim == 4 and 0 not in x_bhwc.shape and parts > 0 and num_heads > 0
            and x_bhwc.shape[3] % (parts * num_heads) == 0 and _fits(*x_bhwc.shape[1:3], side, shifts))


def _native_split(x_bhwc, parts, num_heads, side, shifts):
    _, height, width, channels = x_bhwc.shape
    sizes = (height, width, num_heads, channels // (parts * num_heads), side, side, *shifts)
    y = apply(_Split, [x_bhwc], parts, sizes)
    return tuple(y) if parts > 1 else (y,)


def _accepts_join(x_bwhnd, height, width, side, shifts) -> bool:
    return (x_bwhnd.ndim == 5 and 0 not in x_bwhnd.shape and _fits(height, width, side, shifts)
            and x_bwhnd.shape[3] == side ** 2 and math.prod(x_bwhnd.shape[1:4:2]) == height * width)


def _native_join(x_bwhnd, height, width, side, shifts):
    heads, depth = x_bwhnd.shape[2], x_bwhnd.shape[4]
    return apply(_Join, [x_bwhnd], (height, width, heads, depth, side, side, *shifts))


SPLIT_WINDOWS = Operator("split_windows", 1, _split_windows, native=[Implementation(_accepts_split, _native_split)])
JOIN_WINDOWS = Operator("join_windows", 1, _join_windows, native=[Implementation(_accepts_join, _native_join)])
