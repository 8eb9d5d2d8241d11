"""BatchNorm of maps, and norms of maps [B, H, W, C], in forms that are quick and that oneDNN computes rightly.

Paddle's own, given ``data_format="NHWC"``: oneDNN computes them wrongly in exported programs, a GPU transposes the map
there and back to train BatchNorm (its batch_norm_kernel.cu, float16 with a flag excepted; read, not measured), and a
CPU runs both norms on one thread. Parameters, their names and running statistics are those of Paddle's layers.
"""
import math
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.layers.basic import activate, layer_norm, permute
from passl_mixer.ops import affine_ops, norm_ops, program_ops
from passl_mixer.ops import cpu as ops
from passl_mixer.ops.twice import flatten


class BatchNorm2D(nn.BatchNorm2D):
    """BatchNorm of maps, and the activation before it, the sum and the activation after it where there are any.

    Args:
        width: channels C.
        channels_last: whether maps are [B, H, W, C] unless said otherwise; they are computed on their rows.
        before, after: activation of what comes in and of what goes out, as of ``activate``, or None. A ReLU costs
            nothing on a CPU, a sum nearly nothing.
    """

    activate = staticmethod(activate)       # for what synchronises it, which knows no backbones

    def __init__(self, width: int, *, channels_last: bool = False, before: Optional[str] = None,
                 after: Optional[str] = None):
        super().__init__(width)
        self.on_bhwc, self.before, self.after = channels_last, before, after

    def forward(self, x, channels_last: bool = False, plus=None):
        """``x`` normalised, of its shape and type; [B, H, W, C] with ``channels_last``, or [B, C, H, W].

        Args:
            plus: of the shape of ``x``; added to what is normalised, before the activation that goes out.
        """
        channels_last = channels_last or self.on_bhwc
        inputs = [t for t in (x, plus) if t is not None]
        if all(map(ops.compiled, inputs)) and (
                self.training or not ops.needs_gradient(*inputs, self.weight, self.bias)):
            relus = self.before == "relu", self.after == "relu"
            y = norm_ops.batch_norm(x if relus[0] else activate(x, self.before), self, channels_last=channels_last,
                                    relu_before=relus[0], relu_after=relus[1], other=plus)
            return y if relus[1] else activate(y, self.after)
        shape, x = x.shape, activate(x, self.before)
        if all(map(ops.compiled, inputs)):
            y = self._fixed(x, channels_last)
            return activate(y if plus is None else y + plus, self.after)
        y = F.batch_norm(flatten(x, 0, 2) if channels_last else x, self._mean, self._variance, self.weight, self.bias,
                         training=self.training, momentum=self._momentum, epsilon=self._epsilon)
        y = y.reshape([-1, *shape[1:]]) if channels_last else y
        return activate(y if plus is None else y + plus, self.after)

    def _fixed(self, x, channels_last: bool):
        """Normalised by the running statistics, differentiable: of Paddle's, the scale's gradient is None unless the
        shift's is asked for too (3.3.1, 2.6.2), and there is no second derivative.
        """
        scale = self.weight * paddle.rsqrt(self._variance + self._epsilon)
        shift = self.bias - self._mean * scale
        if channels_last:
            return affine_ops.affine(x, scale, shift)
        return permute(affine_ops.affine(permute(x, [0, 2, 3, 1]), scale, shift), [0, 3, 1, 2])


class MapNorm(BatchNorm2D):
    """``BatchNorm2D`` of maps [B, H, W, C]; arguments as there."""

    def __init__(self, width: int, *, after: Optional[str] = None):
        super().__init__(width, channels_last=True, after=after)


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
        if program_ops.in_cpu_program():
            return self.flat(x.flatten(1)).reshape([-1, *x.shape[1:]])
        if not ops.usable(x):
            return super().forward(x)
        sizes, channels = x.shape[1:], x.shape[-1]
        count = math.prod(sizes)
        y = layer_norm(x.flatten(1), paddle.ones([count]), paddle.zeros([count]), self._epsilon)
        none, one = paddle.zeros([channels]), paddle.ones([channels])
        # Scale and shift by the BatchNorm of variance 1: Paddle's products with [C] are slow on a CPU.
        y = F.batch_norm(y.reshape([-1, channels]), none, one, self.weight, self.bias, epsilon=0.0)
        return y.reshape([-1, *sizes])

    def flat(self, x):
        """The same of images as rows [B, H * W * C]: one LayerNorm, its scale and shift repeated at every position."""
        size, channels = x.shape[1], self.weight.shape[0]
        scale, shift = (paddle.tile(vector, [size // channels]) for vector in (self.weight, self.bias))
        return F.layer_norm(x, [size], scale, shift, self._epsilon)
