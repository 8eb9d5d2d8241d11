"""GroupNorm of one group on a CPU, by compiled passes; for tensors that are ``ops.compiled``, not differentiable twice.

Shapes: x [B, ..., C], weight and bias [C].
"""
import math

import paddle
from paddle.autograd import PyLayer

from passl_mixer.backbones.ops import call, dense, note_wanted, wanted


def _sizes(x) -> tuple:
    return x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]


class _ImageNorm(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        note_wanted(ctx, x, weight, bias)
        x, y = dense(x), paddle.empty(x.shape)
        mean, scale = paddle.empty(x.shape[:1]), paddle.empty(x.shape[:1])
        call("image_norm", x, weight, bias, y, mean, scale, *_sizes(x), epsilon)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, scale = ctx.saved_tensor()
        dx = paddle.empty(x.shape) if ctx.wanted[0] else None
        dweight, dbias = paddle.empty(weight.shape), paddle.empty(weight.shape)
        call("image_norm_gradient", x, weight, mean, scale, dense(grad), dx, dweight, dbias, *_sizes(x))
        return wanted(ctx, lambda: dx, lambda: dweight, lambda: dbias)


def image_norm(x, weight, bias, epsilon: float):
    """Every image normalised over all its places and channels together, then scaled and shifted per channel."""
    return _ImageNorm.apply(x, weight, bias, epsilon)
