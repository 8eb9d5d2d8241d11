"""LayerNorm, and GroupNorm of one group.

Paddle's kernels run on one thread of a CPU, forward or backward; the native ones use every core.
"""
import functools
import math

import paddle
import paddle.nn.functional as F

from passl_mixer.ops.gradients import apply, norm_gradients
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator
from passl_mixer.ops.twice import differentiable_twice


def layer_norm(x, weight, bias, epsilon: float):
    """The last axis normalised to mean 0 and variance 1, then scaled and shifted.

    Args:
        x: [..., C].
        weight: scale [C].
        bias: shift [C].
        epsilon: added to the variance; above 0.
    Returns:
        [..., C].
    Source: Ba et al. 2016, arXiv:1607.06450.
    """
    return LAYER_NORM(x, weight, bias, epsilon)


def _paddle_layer_norm(x, weight, bias, epsilon: float):
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def _layer_norm(x, weight, bias, epsilon: float):
    def gradients(x, weight, bias, dy):
        return norm_gradients(x, weight, dy, [-1], list(range(dy.ndim - 1)), epsilon)
    return differentiable_twice(functools.partial(_paddle_layer_norm, epsilon=epsilon), [x, weight, bias], gradients)


class _LayerNorm:
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        ctx.x, ctx.weight, ctx.epsilon = x, weight, epsilon
        y, ctx.mean, ctx.rstd = empty(x.shape), empty(x.shape[:-1]), empty(x.shape[:-1])
        call("layer_norm", dense(x), dense(weight), dense(bias), y, ctx.mean, ctx.rstd, math.prod(x.shape[:-1]),
             x.shape[-1], epsilon)
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        dx, dweight, dbias = empty(x.shape), empty(weight.shape), empty(weight.shape)
        call("layer_norm_gradient", dense(x), dense(weight), ctx.mean, ctx.rstd, dense(dy), dx, dweight, dbias,
             math.prod(x.shape[:-1]), x.shape[-1])
        return dx, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        return norm_gradients(ctx.x, ctx.weight, dy, [-1], list(range(dy.ndim - 1)), ctx.epsilon)


def _accepts_layer_norm(x, weight, bias, epsilon) -> bool:
    return x.ndim > 1 and 0 not in x.shape and weight.shape == bias.shape == x.shape[-1:]


LAYER_NORM = Operator("layer_norm", 3, _layer_norm, gpu=_paddle_layer_norm, program=_paddle_layer_norm,
                      native=[Implementation(_accepts_layer_norm, lambda *t: apply(_LayerNorm, t[:3], float(t[3])))])


def group_norm1(x, weight, bias, epsilon: float):
    """GroupNorm of one group: every image normalised over its positions and channels together.

    Args:
        x: [B, ..., C].
        weight: scale per channel, [C].
        bias: shift per channel, [C].
        epsilon: added to the variance; above 0.
    Returns:
        The shape of ``x``.
    Source: Wu and He 2018, arXiv:1803.08494, with G = 1.
    """
    return GROUP_NORM1(x, weight, bias, epsilon)


def _as_layer_norm(x, weight, bias, epsilon: float):
    """By one LayerNorm of an image. The gradients of Paddle's group_norm lose digits where numbers lie close together.

    Paddle 2.6 has it as a layer only.
    """
    rows = x.flatten(1)
    return F.layer_norm(rows, rows.shape[1:], None, None, epsilon).reshape(x.shape) * weight + bias


def _paddle_group_norm1(x, weight, bias, epsilon: float):
    if not hasattr(F, "group_norm"):
        return _as_layer_norm(x, weight, bias, epsilon)
    return F.group_norm(x, 1, epsilon, weight, bias, "NHWC")


def _group_norm1(x, weight, bias, epsilon: float):
    def gradients(x, weight, bias, dy):
        return norm_gradients(x, weight, dy, list(range(1, dy.ndim)), list(range(dy.ndim - 1)), epsilon)
    return differentiable_twice(functools.partial(_as_layer_norm, epsilon=epsilon), [x, weight, bias], gradients)


def group_norm1_of_rows(x, weight, bias, epsilon: float):
    """``group_norm1`` of images as rows: one LayerNorm, its scale and shift repeated at every position.

    For programs: oneDNN computes Paddle's norms of [B, H, W, C] wrongly.

    Args:
        x: [B, H * W * C].
        weight, bias, epsilon: as of ``group_norm1``.
    Returns:
        [B, H * W * C].
    """
    size, channels = x.shape[1], weight.shape[0]
    scale, shift = (paddle.tile(vector, [size // channels]) for vector in (weight, bias))
    return F.layer_norm(x, [size], scale, shift, epsilon)


def _group_norm1_in_program(x, weight, bias, epsilon: float):
    return group_norm1_of_rows(x.flatten(1), weight, bias, epsilon).reshape([-1, *x.shape[1:]])


class _GroupNorm1:
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        ctx.x, ctx.weight, ctx.epsilon = x, weight, epsilon
        y, ctx.mean, ctx.rstd = empty(x.shape), empty(x.shape[:1]), empty(x.shape[:1])
        call("image_norm", dense(x), dense(weight), dense(bias), y, ctx.mean, ctx.rstd, *_images(x), epsilon)
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        dx = empty(x.shape) if ctx.needs_grad[0] else None
        dweight, dbias = empty(weight.shape), empty(weight.shape)
        call("image_norm_gradient", dense(x), dense(weight), ctx.mean, ctx.rstd, dense(dy), dx, dweight, dbias,
             *_images(x))
        return dx, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        moments, rows = list(range(1, dy.ndim)), list(range(dy.ndim - 1))
        return norm_gradients(ctx.x, ctx.weight, dy, moments, rows, ctx.epsilon)


def _images(x) -> tuple:
    """``(images, positions, channels)`` of [B, ..., C]."""
    return x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]


GROUP_NORM1 = Operator("group_norm1", 3, _group_norm1, gpu=_paddle_group_norm1, program=_group_norm1_in_program,
                       native=[Implementation(_accepts_layer_norm,
                                              lambda *t: apply(_GroupNorm1, t[:3], float(t[3])))])
