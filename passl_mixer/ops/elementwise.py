"""Products and sums of elements: one factor and one summand per channel, two tensors, the wave of a phase.

Paddle's products with [C], and of two tensors, run on one thread of a CPU or in several passes.
"""
import math

import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator


def affine(x, scale, shift=None):
    """``x * scale + shift`` per channel.

    Args:
        x: [..., C].
        scale: [C].
        shift: [C], or None for none.
    Returns:
        [..., C].
    """
    return AFFINE(x, scale, shift)


def _affine(x, scale, shift):
    return x * scale if shift is None else x * scale + shift


def add_scaled(residual, x, scale):
    """``residual + x * scale`` per channel.

    Args:
        residual: [..., C].
        x: of the shape of ``residual``.
        scale: [C].
    Returns:
        [..., C].
    """
    return ADD_SCALED(residual, x, scale)


def _add_scaled(residual, x, scale):
    return residual + x * scale


def _rows(x) -> tuple:
    return math.prod(x.shape[:-1]), x.shape[-1]


class _Affine:
    @staticmethod
    def forward(ctx, x, scale, shift, residual):
        ctx.x, ctx.scale, y = x, scale, empty(x.shape)
        shift, residual = (None if t is None else dense(t) for t in (shift, residual))
        call("affine", dense(x), dense(scale), shift, residual, y, *_rows(x))
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, scale = ctx.x, ctx.scale
        # the residual's is a copy: Paddle adds into the gradients it is given
        gradients = [empty(like.shape) if needed else None
                     for like, needed in zip((x, scale, scale, x), ctx.needs_grad)]
        call("affine_gradient", dense(x), dense(scale), dense(dy), *gradients, *_rows(x))
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        rows = list(range(dy.ndim - 1))
        return (lambda: dy * ctx.scale, lambda: (dy * ctx.x).sum(rows), lambda: dy.sum(rows), lambda: dy.clone())


def _per_channel(x, *vectors) -> bool:
    return x.ndim > 1 and 0 not in x.shape and all(v is None or v.shape == x.shape[-1:] for v in vectors)


AFFINE = Operator("affine", 3, _affine, native=[Implementation(
    _per_channel, lambda x, scale, shift: apply(_Affine, [x, scale, shift, None]))])
ADD_SCALED = Operator("add_scaled", 3, _add_scaled, native=[Implementation(
    lambda residual, x, scale: residual.shape == x.shape and _per_channel(x, scale),
    lambda residual, x, scale: apply(_Affine, [x, scale, None, residual]))])


def multiply(a, b):
    """The product of a and b, both [...] of one shape, element by element; of that shape."""
    return MULTIPLY(a, b)


class _Product:
    @staticmethod
    def forward(ctx, a, b):
        ctx.a, ctx.b, y = a, b, empty(a.shape)
        call("product", dense(a), dense(b), y, math.prod(a.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        gradients = [empty(dy.shape) for _ in range(2)]
        call("product_gradient", dense(ctx.a), dense(ctx.b), dense(dy), *gradients, math.prod(dy.shape))
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        return lambda: dy * ctx.b, lambda: dy * ctx.a


def _same_shape(a, b) -> bool:
    return a.shape == b.shape and 0 not in a.shape


MULTIPLY = Operator("multiply", 2, lambda a, b: a * b,
                    native=[Implementation(_same_shape, lambda a, b: apply(_Product, [a, b]))])


def unfold_wave(amplitude, phase):
    """Real and imaginary part of the wave ``amplitude * exp(i phase)``.

    Args:
        amplitude: [..., C].
        phase: of the same shape, in radians.
    Returns:
        [..., 2 C], first the C cosine parts.
    Source: Tang et al. 2021, arXiv:2111.12294; Euler's formula.
    """
    return UNFOLD_WAVE(amplitude, phase)


def _unfold_wave(amplitude, phase):
    cosine, sine = (f(phase).astype(amplitude.dtype) for f in (paddle.cos, paddle.sin))
    return paddle.concat([amplitude * cosine, amplitude * sine], axis=-1)


class _UnfoldWave:
    @staticmethod
    def forward(ctx, amplitude, phase):
        ctx.amplitude, ctx.phase = amplitude, phase
        ctx.cosine, ctx.sine = paddle.cos(dense(phase)), paddle.sin(dense(phase))
        wave = empty([*amplitude.shape[:-1], 2 * amplitude.shape[-1]])
        call("unfold_wave", dense(amplitude), ctx.cosine, ctx.sine, wave, *_rows(amplitude))
        ctx.wave = wave.detach()
        return wave

    @staticmethod
    def gradients(ctx, dy):
        gradients = [empty(ctx.cosine.shape) for _ in range(2)]
        call("unfold_wave_gradient", ctx.cosine, ctx.sine, ctx.wave, dense(dy), *gradients, *_rows(ctx.cosine))
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        real, imaginary = dy.chunk(2, axis=-1)
        cosine, sine = paddle.cos(ctx.phase), paddle.sin(ctx.phase)
        return (lambda: real * cosine + imaginary * sine,
                lambda: ctx.amplitude * (imaginary * cosine - real * sine))


UNFOLD_WAVE = Operator("unfold_wave", 2, _unfold_wave, native=[Implementation(
    lambda a, phase: a.ndim > 0 and _same_shape(a, phase), lambda a, phase: apply(_UnfoldWave, [a, phase]))])
