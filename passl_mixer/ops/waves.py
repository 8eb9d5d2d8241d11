"""Wave-MLP's token mixing: waves of amplitudes and phases, mixed in pairs of parts along one axis.

One pass of a native kernel in place of cosine, sine, two products, a concatenation and a grouped convolution. The waves
are not kept: the gradient computes them again, which costs less than reading them.
"""
import paddle

from passl_mixer.ops.convolution import conv2d
from passl_mixer.ops.convolution_kernels import PairMix
from passl_mixer.ops.elementwise import unfold_wave
from passl_mixer.ops.gradients import Kept, apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator


def wave_mix(amplitude, phase, weight):
    """The waves ``amplitude * exp(i phase)``, their parts mixed in neighbouring pairs along one axis.

    Args:
        amplitude: [B, H, W, C].
        phase: of the same shape, in radians.
        weight: [C, 2, k, 1] mixes along the height, [C, 2, 1, k] along the width; k odd. Zeros outside the map.
    Returns:
        [B, H, W, C]; channel c reads channels 2 c and 2 c + 1 of ``unfold_wave(amplitude, phase)``.
    Source: Tang et al. 2021, arXiv:2111.12294; the official code's PATM.
    """
    return WAVE_MIX(amplitude, phase, weight)


def _wave_mix(amplitude, phase, weight):
    return conv2d(unfold_wave(amplitude, phase), weight, padding=[side // 2 for side in weight.shape[2:]],
                  groups=weight.shape[0], data_format="NHWC")


class _WaveMix:
    @staticmethod
    def forward(ctx, amplitude, phase, weight):
        *_, height, width = weight.shape
        ctx.tensors, y_bhwc = (amplitude, phase, weight), empty(amplitude.shape)
        ctx.sizes = (*amplitude.shape, height * width, 1 if width == 1 else 2)
        call("wave_mix", *map(dense, ctx.tensors), y_bhwc, *ctx.sizes)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        gradients = [empty(t.shape) for t in ctx.tensors]
        call("wave_mix_gradient", *map(dense, ctx.tensors), dense(dy), *gradients, *ctx.sizes)
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        amplitude, phase, weight = ctx.tensors
        cosine, sine = paddle.cos(phase), paddle.sin(phase)
        mixed = Kept([True, True])
        mixed.x, mixed.weight = paddle.concat([amplitude * cosine, amplitude * sine], axis=-1), weight
        wave_gradient, weight_gradient = PairMix.plain_gradients(mixed, dy)
        real, imaginary = wave_gradient().chunk(2, axis=-1)
        return (lambda: real * cosine + imaginary * sine,
                lambda: amplitude * (imaginary * cosine - real * sine), weight_gradient)


def _accepts_wave_mix(amplitude, phase, weight) -> bool:
    if amplitude.ndim != 4 or weight.ndim != 4 or 0 in amplitude.shape or amplitude.shape != phase.shape:
        return False
    channels, parts, height, width = weight.shape
    return (channels == amplitude.shape[3] and parts == 2 and 1 in (height, width) and height * width % 2 == 1)


WAVE_MIX = Operator("wave_mix", 3, _wave_mix,
                    native=[Implementation(_accepts_wave_mix, lambda *tensors: apply(_WaveMix, tensors))])
