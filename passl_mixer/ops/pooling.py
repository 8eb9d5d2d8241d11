"""Max-pooling of maps, and means over their positions.

On a CPU Paddle pools on one thread, and spreads the gradient of a mean over two axes element by element.
"""
import ctypes

import paddle
import paddle.nn.functional as F

from passl_mixer.ops.axes import flatten
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator

LARGEST = 15        # side of the native kernel's windows: it keeps places in them as bytes


def max_pool2d(x, kernel: int, *, stride: int, padding: int = 0, data_format: str = "NCHW"):
    """The largest number of each window; of equal ones the first gets the gradient.

    Args:
        x: [B, C, H, W], or [B, H, W, C] with the channels last.
        kernel: side of the window in positions.
        stride: positions between windows.
        padding: positions that windows reach over the edges; less than ``kernel``.
        data_format: "NCHW", or "NHWC" where the channels are last.
    Returns:
        [B, C, h, w] or [B, h, w, C], where h = floor((H + 2 padding - kernel) / stride) + 1, and w likewise.
    """
    return MAX_POOL2D(x, kernel, stride, padding, data_format)


def _max_pool2d(x, kernel, stride, padding, data_format):
    return F.max_pool2d(x, kernel, stride, padding, data_format=data_format)


class _MaxPool:
    @staticmethod
    def forward(ctx, x, shape, sizes):
        y, ctx.places, ctx.shape, ctx.sizes = empty(shape), empty(shape, paddle.uint8), x.shape, sizes
        call("max_pool", dense(x), y, ctx.places, sizes)
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Unpool, [dy], ctx.places, ctx.shape, ctx.sizes)]

    plain_gradients = gradients


class _Unpool:
    """Numbers laid at the places that the largest came from; its gradient takes what lies there."""

    @staticmethod
    def forward(ctx, dy, places, shape, sizes):
        ctx.places, ctx.sizes, dx = places, sizes, empty(shape)
        call("max_pool_gradient", dense(dy), places, dx, sizes)
        return dx

    @staticmethod
    def gradients(ctx, ddx):
        outer, height, width, channels, kernel, stride, padding = ctx.sizes
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
        place = ctx.places.astype("int64").reshape([outer, *sides, channels])
        image, row, column, channel = paddle.meshgrid(*(paddle.arange(size) for size in place.shape))
        row = row * stride - padding + place // kernel
        column = column * stride - padding + place % kernel
        flat = ((image * height + row) * width + column) * channels + channel
        return [paddle.gather(ddx.reshape([-1]), flat.reshape([-1])).reshape(ctx.places.shape)]

    plain_gradients = gradients


def _sides(x, data_format: str) -> list:
    return x.shape[2:] if data_format == "NCHW" else x.shape[1:3]


def _accepts_max_pool2d(x, kernel, stride, padding, data_format) -> bool:
    return (x.ndim == 4 and 0 not in x.shape and 0 < kernel <= LARGEST and stride > 0 and 0 <= padding < kernel
            and min(_sides(x, data_format)) + 2 * padding >= kernel)


def _native_max_pool2d(x, kernel, stride, padding, data_format):
    first = 2 if data_format == "NCHW" else 1
    sides = _sides(x, data_format)
    outer, channels = (x.shape[0] * x.shape[1], 1) if data_format == "NCHW" else (x.shape[0], x.shape[3])
    pooled = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    sizes = (ctypes.c_int64 * 7)(outer, *sides, channels, kernel, stride, padding)
    return apply(_MaxPool, [x], [*x.shape[:first], *pooled, *x.shape[first + 2:]], sizes)


MAX_POOL2D = Operator("max_pool2d", 1, _max_pool2d,
                      native=[Implementation(_accepts_max_pool2d, _native_max_pool2d)])


def spatial_mean(x, data_format: str = "NCHW"):
    """Mean over the positions of maps.

    Args:
        x: [B, C, H, W], or [B, H, W, C] with the channels last.
        data_format: "NCHW", or "NHWC" where the channels are last.
    Returns:
        [B, C].
    """
    return SPATIAL_MEAN(x, data_format)


def _spatial_mean(x, data_format: str):
    return x.mean(axis=[2, 3] if data_format == "NCHW" else [1, 2])


def _mean_by_product(x, data_format: str):
    """A product with equal shares."""
    if data_format == "NHWC":
        return map_mean(x)
    places = x.shape[2] * x.shape[3]
    return paddle.matmul(flatten(x, 2, 3), paddle.full([places, 1], 1.0 / places)).squeeze(2)


def map_mean(x_bhwc):
    """Mean over the positions of [B, H, W, C] as a product with equal shares, [B, C]; H and W are known."""
    _, height, width, _ = x_bhwc.shape
    share = paddle.full([1, height * width], 1.0 / (height * width), x_bhwc.dtype)
    return paddle.matmul(share, flatten(x_bhwc, 1, 2)).squeeze(1)


SPATIAL_MEAN = Operator("spatial_mean", 1, _spatial_mean, native=[Implementation(
    lambda x, data_format: x.ndim == 4 and 0 not in x.shape, _mean_by_product)])
