"""GroupNorm of one group and BatchNorm on a CPU, by compiled passes; for tensors that are ``ops.compiled``.

Not differentiable twice. Shapes: x [B, ..., C], of BatchNorm also [B, C, H, W]; weight and bias [C].
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


def _places(x, channels_last: bool) -> tuple:
    """``(outer, channels, inner)`` as the passes of BatchNorm want them."""
    if channels_last:
        return math.prod(x.shape[:-1]), x.shape[-1], 1
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _normalised(x, mean, scale, bias, other, sizes):
    y = paddle.empty(x.shape)
    call("batch_normalise", x, mean, scale, bias, other, y, *sizes)
    return y


class _BatchNorm(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, other, norm, sizes):
        note_wanted(ctx, x, weight, bias, *([] if other is None else [other]))
        x, other, ctx.sizes = dense(x), None if other is None else dense(other), sizes
        mean, rstd, scale = (paddle.empty(weight.shape) for _ in range(3))
        call("batch_moments", x, weight, mean, rstd, scale, norm._mean, norm._variance, float(norm._momentum),
             norm._epsilon, *sizes)
        ctx.save_for_backward(x, mean, rstd, scale, bias, *([] if other is None else [other]))
        return _normalised(x, mean, scale, bias, other, sizes)

    @staticmethod
    def backward(ctx, grad):
        x, mean, rstd, scale, bias, *others = ctx.saved_tensor()
        dx, dother = (paddle.empty(x.shape) if wants else None for wants in (ctx.wanted[0], any(ctx.wanted[3:])))
        dweight, dbias = paddle.empty(mean.shape), paddle.empty(mean.shape)
        call("batch_norm_gradient", x, mean, rstd, scale, bias, *(others or [None]), dense(grad), dx, dother, dweight,
             dbias, *ctx.sizes)
        return wanted(ctx, lambda: dx, lambda: dweight, lambda: dbias, *([lambda: dother] if others else []))


def batch_norm(x, norm, *, channels_last: bool, relu_before: bool, relu_after: bool, other=None):
    """BatchNorm of [B, C, H, W] or, with ``channels_last``, of [..., C]; training moves the running statistics.

    Args:
        norm: Paddle's layer, with a scale and a shift; in evaluation not differentiable.
        relu_before, relu_after: whether a ReLU of what comes in, or of what goes out, is part of it.
        other: of the shape of ``x``; added to what is normalised, before the ReLU after it.
    """
    if other is not None and other.shape != x.shape:
        raise ValueError(f"a map {list(other.shape)} is to be added to a normalised map {list(x.shape)}; expected one "
                         "shape")
    sizes = (*_places(x, channels_last), relu_before + 2 * relu_after)
    if norm.training:
        return _BatchNorm.apply(x, norm.weight, norm.bias, other, norm, sizes)
    with paddle.no_grad():
        scale = norm.weight * paddle.rsqrt(norm._variance + norm._epsilon)
        return _normalised(dense(x), norm._mean, scale, norm.bias, None if other is None else dense(other), sizes)
