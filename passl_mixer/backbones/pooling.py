"""Max-pooling of maps: Paddle's layer, and on a CPU a compiled pass that uses every core.

Not differentiable twice. Shapes: B images, C channels, H x W positions.
"""
import ctypes

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from passl_mixer.backbones import ops

LARGEST = 15        # kernel of the compiled pass, which keeps places in windows as bytes


class _MaxPool(PyLayer):
    @staticmethod
    def forward(ctx, x, shape, sizes):
        x, y, ctx.sizes, ctx.shape = ops.dense(x), paddle.empty(shape), sizes, x.shape
        places = paddle.empty(shape, "uint8")
        ops.call("max_pool", x, y, places, sizes)
        ctx.save_for_backward(places)
        return y

    @staticmethod
    def backward(ctx, grad):
        (places,) = ctx.saved_tensor()
        dx = paddle.empty(ctx.shape)
        ops.call("max_pool_gradient", ops.dense(grad), places, dx, ctx.sizes)
        return dx


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
        return _MaxPool.apply(x, [*x.shape[:first], *sides, *x.shape[first + 2:]], sizes)
