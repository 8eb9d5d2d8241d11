"""Max-pooling of maps: Paddle's layer, and on a CPU a compiled pass that uses every core.

Shapes: B images, C channels, H x W positions.
"""
import ctypes

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.ops import cpu as ops
from passl_mixer.ops import native
from passl_mixer.ops.gradients import apply

LARGEST = 15        # kernel of the compiled pass, which keeps places in windows as bytes


class _MaxPool:
    @staticmethod
    def forward(ctx, x, shape, sizes):
        y, ctx.places, ctx.shape, ctx.sizes = paddle.empty(shape), paddle.empty(shape, "uint8"), x.shape, sizes
        native.call("max_pool", native.dense(x), y, ctx.places, sizes)
        return y

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Unpool, [dy], ctx.places, ctx.shape, ctx.sizes)]

    plain_gradients = gradients


class _Unpool:
    """Numbers laid at the places that the largest came from; its gradient takes what lies there."""

    @staticmethod
    def forward(ctx, dy, places, shape, sizes):
        ctx.places, ctx.sizes, dx = places, sizes, paddle.empty(shape)
        native.call("max_pool_gradient", native.dense(dy), places, dx, sizes)
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


class MaxPool2D(nn.MaxPool2D):
    """``nn.MaxPool2D`` of one kernel side, stride and padding; of equal pixels in a window the first gets the gradient.

    Args:
        kernel: side of the window in pixels.
        stride: pixels between windows.
        padding: pixels that windows reach over the edges; less than ``kernel``.
    """

    def __init__(self, kernel: int, *, stride: int, padding: int = 0):
        super().__init__(kernel, stride, padding)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.on_bhwc = False        # whether x is [B, H, W, C]: see layout.py

    def forward(self, x):
        """The largest of each window of [B, C, H, W], or of [B, H, W, C] where ``on_bhwc``."""
        if not ops.compiled(x) or self.kernel > LARGEST:
            return F.max_pool2d(x, self.kernel, self.stride, self.padding,
                                data_format="NHWC" if self.on_bhwc else "NCHW")
        first = 1 if self.on_bhwc else 2
        height, width = x.shape[first:first + 2]
        outer, channels = (x.shape[0], x.shape[3]) if self.on_bhwc else (x.shape[0] * x.shape[1], 1)
        sides = [(side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (height, width)]
        sizes = (ctypes.c_int64 * 7)(outer, height, width, channels, self.kernel, self.stride, self.padding)
        return apply(_MaxPool, [x], [*x.shape[:first], *sides, *x.shape[first + 2:]], sizes)
