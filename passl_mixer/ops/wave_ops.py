"""What Wave-MLP does on a CPU by ``passl_mixer.ops.native``: the wave of a phase, and its mixing.

They want ``ops.compiled(x)``; callers take Paddle's operators elsewhere.
Shapes: maps [B, H, W, C]; a wave [B, H, W, 2 C].
"""
import paddle

from passl_mixer.ops.cpu import rows_of
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.map_ops import conv_gradients
from passl_mixer.ops.native import call, dense


class _UnfoldWave:
    @staticmethod
    def forward(ctx, amplitude_bhwc, phase_bhwc):
        ctx.amplitude, ctx.phase = amplitude_bhwc, phase_bhwc
        ctx.cosine, ctx.sine = paddle.cos(dense(phase_bhwc)), paddle.sin(dense(phase_bhwc))
        wave_bhwc = paddle.empty([*amplitude_bhwc.shape[:-1], 2 * amplitude_bhwc.shape[-1]])
        call("unfold_wave", dense(amplitude_bhwc), ctx.cosine, ctx.sine, wave_bhwc, *rows_of(amplitude_bhwc, 0)[:2])
        ctx.wave = wave_bhwc.detach()
        return wave_bhwc

    @staticmethod
    def gradients(ctx, dy):
        found = [paddle.empty(ctx.cosine.shape) for _ in range(2)]
        call("unfold_wave_gradient", ctx.cosine, ctx.sine, ctx.wave, dense(dy), *found, *rows_of(ctx.cosine, 0)[:2])
        return found

    @staticmethod
    def plain_gradients(ctx, dy):
        real, imaginary = dy.chunk(2, axis=-1)
        cosine, sine = paddle.cos(ctx.phase), paddle.sin(ctx.phase)
        return (lambda: real * cosine + imaginary * sine,
                lambda: ctx.amplitude * (imaginary * cosine - real * sine))


def unfold_wave(amplitude_bhwc, phase_bhwc):
    """``[amplitude cos(phase), amplitude sin(phase)]``, [B, H, W, 2 C]."""
    return apply(_UnfoldWave, [amplitude_bhwc, phase_bhwc])


class _PairMix:
    @staticmethod
    def forward(ctx, x_bhwc, weight):
        channels, _, height, width = weight.shape
        ctx.x, ctx.weight = x_bhwc, weight
        ctx.sizes = (*x_bhwc.shape[:3], channels, height * width, 1 if width == 1 else 2)
        y_bhwc = paddle.empty([*x_bhwc.shape[:3], channels])
        call("pair_mix", dense(x_bhwc), weight, y_bhwc, *ctx.sizes)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        dy = dense(dy)

        def input_gradient():
            dx_bhwc = paddle.empty(ctx.x.shape)
            call("pair_mix_gradient", dy, ctx.weight, dx_bhwc, *ctx.sizes)
            return dx_bhwc

        def weight_gradient():
            dweight = paddle.empty(ctx.weight.shape)
            call("pair_mix_weight_gradient", dense(ctx.x), dy, dweight, *ctx.sizes)
            return dweight

        return input_gradient, weight_gradient

    @staticmethod
    def plain_gradients(ctx, dy):
        channels, _, height, width = ctx.weight.shape
        input_gradient, weight_gradient = conv_gradients(
            ctx.x.transpose([0, 3, 1, 2]), ctx.weight, dy.transpose([0, 3, 1, 2]), stride=1,
            padding=[height // 2, width // 2], groups=channels)
        return lambda: input_gradient().transpose([0, 2, 3, 1]), weight_gradient


def pair_mix(x_bhwc, weight):
    """Convolution along one axis that keeps the size, of two channels a group and zeros outside; no bias.

    Args:
        x_bhwc: [B, H, W, 2 C].
        weight: [C, 2, k, 1] along the height or [C, 2, 1, k] along the width, k odd; output channel c reads the
            channels 2 c and 2 c + 1.
    Returns:
        [B, H, W, C].
    """
    return apply(_PairMix, [x_bhwc, weight])
