"""Hire-MLP's regions: the positions of a part of an axis side by side in the channels, after the axis was turned.

Shapes: B images, H x W positions, C channels.
"""
import ctypes

from passl_mixer.errors import BadInput
from passl_mixer.ops.axes import permute
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.shifts import take
from passl_mixer.ops.table import Implementation, Operator


def to_regions(x_bhwc, size: int, axis: int, shift: int = 0):
    """Gather the positions of a region along one axis in its channels (inner-region rearrangement).

    Args:
        x_bhwc: [B, H, W, C].
        size: positions of a region.
        axis: 1 gathers along the height, 2 along the width.
        shift: positions the axis is turned by before (cross-region rearrangement).
    Returns:
        [B, ceil(H / size), W, size * C] or [B, H, ceil(W / size), size * C]; channel ``p * C + c`` is channel c
        of the region's position p. A last region that is not full goes on with the first positions.
    Raises:
        BadInput: the length of the axis is not known.
    Source: Guo et al. 2021, arXiv:2108.13341, inner-region rearrangement.
    """
    length = x_bhwc.shape[axis]
    if not isinstance(length, int) or length < 1:
        raise BadInput("Hire-MLP lays regions over an image side of unknown length; export it with a fixed "
                       "image size")
    return TO_REGIONS(x_bhwc, size, axis, shift)


def from_regions(x_bhwc, size: int, axis: int, length: int, shift: int = 0):
    """Undo ``to_regions``.

    Args:
        x_bhwc: what ``to_regions`` gave.
        size, axis, shift: as there.
        length: of the axis before ``to_regions``.
    Returns:
        [B, H, W, C], of which the axis has ``length`` positions.
    """
    return FROM_REGIONS(x_bhwc, size, axis, length, shift)


def _turned(x_bhwc, axis: int, start: int, count: int, length: int):
    """``count`` positions of an axis from ``start`` on, going round after ``length`` positions."""
    if start == 0 and count == x_bhwc.shape[axis]:
        return x_bhwc
    return take(x_bhwc, [(start + i) % length for i in range(count)], axis)


def _to_regions(x_bhwc, size, axis, shift):
    length = x_bhwc.shape[axis]
    x_bhwc = _turned(x_bhwc, axis, -shift, -(-length // size) * size, length)
    height, width, chans = x_bhwc.shape[1:]
    if axis == 2:
        return x_bhwc.reshape([-1, height, width // size, size * chans])
    x_bgswc = x_bhwc.reshape([-1, height // size, size, width, chans])
    return permute(x_bgswc, [0, 1, 3, 2, 4]).reshape([-1, height // size, width, size * chans])


def _from_regions(x_bhwc, size, axis, length, shift):
    height, width, chans = x_bhwc.shape[1:]
    chans //= size
    if axis == 2:
        x_bhwc = x_bhwc.reshape([-1, height, width * size, chans])
    else:
        x_bgwsc = x_bhwc.reshape([-1, height, width, size, chans])
        x_bhwc = permute(x_bgwsc, [0, 1, 3, 2, 4]).reshape([-1, height * size, width, chans])
    return _turned(x_bhwc, axis, shift, length, length)


class _Gather:
    """The regions of a map; ``places`` says for each of their positions which position of the axis it is, -1 none."""

    @staticmethod
    def forward(ctx, x, places, size, axis):
        ctx.places, ctx.size, ctx.axis, (batch, height, width, chans) = places, size, axis, x.shape
        ctx.length, groups = x.shape[axis], len(places) // size
        shape = [batch, groups, width, size * chans] if axis == 1 else [batch, height, groups, size * chans]
        y = empty(shape)
        call("gather_regions", dense(x), places, y, *_sizes(batch, height, width, axis), len(places) // size, size,
             chans)
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Scatter, [dy], ctx.places, ctx.size, ctx.axis, ctx.length)]

    plain_gradients = gradients


class _Scatter:
    """The sums of a map's positions over regions."""

    @staticmethod
    def forward(ctx, x, places, size, axis, length):
        ctx.places, ctx.size, ctx.axis, shape = places, size, axis, [*x.shape[:3], x.shape[3] // size]
        shape[axis] = length
        y = empty(shape)
        call("scatter_regions", dense(x), places, y, *_sizes(*shape[:3], axis), len(places) // size, size, shape[3])
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Gather, [dy], ctx.places, ctx.size, ctx.axis)]

    plain_gradients = gradients


def _sizes(batch: int, height: int, width: int, axis: int) -> tuple:
    """``(outer, length, inner)`` positions: before the axis, along it and after it."""
    return (batch, height, width) if axis == 1 else (batch * height, width, 1)


def _places(numbers):
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _accepts_to_regions(x_bhwc, size, axis, shift) -> bool:
    return x_bhwc.ndim == 4 and 0 not in x_bhwc.shape and size > 0 and axis in (1, 2)


def _native_to_regions(x_bhwc, size, axis, shift):
    length = x_bhwc.shape[axis]
    places = [(i - shift) % length for i in range(-(-length // size) * size)]
    return apply(_Gather, [x_bhwc], _places(places), size, axis)


def _accepts_from_regions(x_bhwc, size, axis, length, shift) -> bool:
    return (x_bhwc.ndim == 4 and 0 not in x_bhwc.shape and size > 0 and axis in (1, 2) and x_bhwc.shape[3] % size == 0
            and 0 < length <= x_bhwc.shape[axis] * size)


def _native_from_regions(x_bhwc, size, axis, length, shift):
    places = [(i - shift) % length if i < length else -1 for i in range(x_bhwc.shape[axis] * size)]
    return apply(_Scatter, [x_bhwc], _places(places), size, axis, length)


TO_REGIONS = Operator("to_regions", 1, _to_regions,
                      native=[Implementation(_accepts_to_regions, _native_to_regions)])
FROM_REGIONS = Operator("from_regions", 1, _from_regions,
                        native=[Implementation(_accepts_from_regions, _native_from_regions)])
