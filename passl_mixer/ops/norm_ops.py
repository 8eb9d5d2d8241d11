"""GroupNorm of one group and BatchNorm on a CPU, by compiled passes; for tensors that are ``ops.compiled``.

Shapes: x [B, ..., C], of BatchNorm also [B, C, H, W]; weight and bias [C].
"""
import math

import paddle

from passl_mixer.ops.gradients import apply, norm_gradients
from passl_mixer.ops.native import call, dense


def _sizes(x) -> tuple:
    return x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]


class _ImageNorm:
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        ctx.x, ctx.weight, ctx.epsilon = x, weight, epsilon
        y, ctx.mean, ctx.rstd = paddle.empty(x.shape), paddle.empty(x.shape[:1]), paddle.empty(x.shape[:1])
        call("image_norm", dense(x), weight, bias, y, ctx.mean, ctx.rstd, *_sizes(x), epsilon)
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        dx = paddle.empty(x.shape) if ctx.wanted[0] else None
        dweight, dbias = paddle.empty(weight.shape), paddle.empty(weight.shape)
        call("image_norm_gradient", dense(x), weight, ctx.mean, ctx.rstd, dense(dy), dx, dweight, dbias, *_sizes(x))
        return dx, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        moments, rows = list(range(1, dy.ndim)), list(range(dy.ndim - 1))
        return norm_gradients(ctx.x, ctx.weight, dy, moments, rows, ctx.epsilon)


def image_norm(x, weight, bias, epsilon: float):
    """Every image normalised over all its places and channels together, then scaled and shifted per channel."""
    return apply(_ImageNorm, [x, weight, bias], epsilon)


def _places(x, channels_last: bool) -> tuple:
    """``(outer, channels, inner)`` as the passes of BatchNorm want them."""
    if channels_last:
        return math.prod(x.shape[:-1]), x.shape[-1], 1
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _normalised(x, mean, scale, bias, other, sizes):
    y = paddle.empty(x.shape)
    call("batch_normalise", x, mean, scale, bias, other, y, *sizes)
    return y


class _BatchNorm:
    @staticmethod
    def forward(ctx, x, weight, bias, other, norm, sizes):
        ctx.x, ctx.weight, ctx.bias, ctx.other, ctx.sizes, ctx.epsilon = x, weight, bias, other, sizes, norm._epsilon
        other = None if other is None else dense(other)
        ctx.mean, ctx.rstd, ctx.scale = (paddle.empty(weight.shape) for _ in range(3))
        call("batch_moments", dense(x), weight, ctx.mean, ctx.rstd, ctx.scale, norm._mean, norm._variance,
             float(norm._momentum), norm._epsilon, *sizes)
        return _normalised(dense(x), ctx.mean, ctx.scale, bias, other, sizes)

    @staticmethod
    def gradients(ctx, dy):
        x, other = dense(ctx.x), None if ctx.other is None else dense(ctx.other)
        dx, dother = (paddle.empty(x.shape) if wants else None for wants in (ctx.wanted[0], ctx.wanted[3]))
        dweight, dbias = paddle.empty(ctx.weight.shape), paddle.empty(ctx.weight.shape)
        call("batch_norm_gradient", x, ctx.mean, ctx.rstd, ctx.scale, ctx.bias, other, dense(dy), dx, dother, dweight,
             dbias, *ctx.sizes)
        return dx, dweight, dbias, dother

    @staticmethod
    def plain_gradients(ctx, dy):
        """Images first, then channels, then positions; the ReLUs are factors of 0 and 1."""
        outer, channels, inner = ctx.sizes[:3]
        x, dy, other = (None if t is None else t.reshape([outer, channels, inner]) for t in (ctx.x, dy, ctx.other))
        relu_before, relu_after = ctx.sizes[3] & 1, ctx.sizes[3] & 2
        weight = ctx.weight.unsqueeze(-1)
        passed = (x.detach() > 0).astype(x.dtype) if relu_before else 1.0
        if relu_after:
            with paddle.no_grad():
                z = _normalised(dense(ctx.x), ctx.mean, ctx.scale, ctx.bias, None, (*ctx.sizes[:3], int(relu_before)))
                z = z.reshape(dy.shape) if other is None else z.reshape(dy.shape) + other
                kept = (z > 0).astype(dy.dtype)
            dy = dy * kept
        shape = ctx.x.shape
        dx, dweight, dbias = norm_gradients(x * passed, weight, dy, [0, 2], [0, 2], ctx.epsilon)
        return (lambda: (dx() * passed).reshape(shape), dweight, dbias, lambda: dy.reshape(shape).clone())


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
        return apply(_BatchNorm, [x, norm.weight, norm.bias, other], norm, sizes)
    with paddle.no_grad():
        scale = norm.weight * paddle.rsqrt(norm._variance + norm._epsilon)
        return _normalised(dense(x), norm._mean, scale, norm.bias, None if other is None else dense(other), sizes)
