"""Norms of maps [B, H, W, C], in forms that are quick and that oneDNN computes rightly.

Paddle's own, given ``data_format="NHWC"``: oneDNN computes them wrongly in exported programs, a GPU transposes the map
there and back to train BatchNorm (its batch_norm_kernel.cu, float16 with a flag excepted; read, not measured), and a
CPU runs GroupNorm on one thread. Parameters, their names and running statistics are those of Paddle's layers.
"""
import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.backbones import norm_ops, ops, program_ops
from passl_mixer.backbones.layers import layer_norm


class MapNorm(nn.BatchNorm2D):
    """BatchNorm of maps [B, H, W, C], computed on their rows [B * H * W, C].

    Args:
        width: channels C.
        momentum: of the running statistics, which keep this share of themselves.
        epsilon: added to the variance.
    """

    def __init__(self, width: int, *, momentum: float = 0.9, epsilon: float = 1e-5):
        super().__init__(width, momentum=momentum, epsilon=epsilon, data_format="NHWC")

    def forward(self, x_bhwc):
        """``x_bhwc`` normalised, of its shape and type."""
        y = F.batch_norm(x_bhwc.flatten(0, 2), self._mean, self._variance, self.weight, self.bias,
                         training=self.training, momentum=self._momentum, epsilon=self._epsilon)
        return y.reshape([-1, *x_bhwc.shape[1:]])


class ImageNorm(nn.GroupNorm):
    """GroupNorm of one group: all positions and channels of an image together, then a scale and shift per channel.

    Args:
        width: channels C of maps [B, H, W, C].
    Source: Wu and He 2018, arXiv:1803.08494, with G = 1.
    """

    def __init__(self, width: int):
        super().__init__(1, width, data_format="NHWC")

    def forward(self, x):
        """``x`` [B, H, W, C], or positions in a row [B, H * W, C], normalised, of its shape."""
        if ops.compiled(x):
            return norm_ops.image_norm(x, self.weight, self.bias, self._epsilon)
        if not (ops.usable(x) or program_ops.in_cpu_program()):
            return super().forward(x)
        sizes, channels = x.shape[1:], x.shape[-1]
        count = math.prod(sizes)
        y = layer_norm(x.flatten(1), paddle.ones([count]), paddle.zeros([count]), self._epsilon)
        none, one = paddle.zeros([channels]), paddle.ones([channels])
        # Scale and shift by the BatchNorm of variance 1: Paddle's products with [C] are slow on a CPU.
        y = F.batch_norm(y.reshape([-1, channels]), none, one, self.weight, self.bias, epsilon=0.0)
        return y.reshape([-1, *sizes])
