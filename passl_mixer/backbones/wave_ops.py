"""What Wave-MLP does on a CPU by the compiled passes of ``passl_mixer.native``: the wave of a phase, and its mixing.

They want ``ops.compiled(x)``; callers take Paddle's operators elsewhere. Not differentiable twice.
Shapes: maps [B, H, W, C]; a wave [B, H, W, 2 C].
"""
import paddle
from paddle.autograd import PyLayer

from passl_mixer.backbones.ops import call, dense, note_wanted, rows_of, wanted


class _UnfoldWave(PyLayer):
    @staticmethod
    def forward(ctx, amplitude_bhwc, phase_bhwc):
        note_wanted(ctx, amplitude_bhwc, phase_bhwc)
        amplitude_bhwc, phase_bhwc = dense(amplitude_bhwc), dense(phase_bhwc)
        cosine, sine = paddle.cos(phase_bhwc), paddle.sin(phase_bhwc)
        wave_bhwc = paddle.empty([*amplitude_bhwc.shape[:-1], 2 * amplitude_bhwc.shape[-1]])
        call("unfold_wave", amplitude_bhwc, cosine, sine, wave_bhwc, *rows_of(amplitude_bhwc, 0)[:2])
        ctx.save_for_backward(cosine, sine, wave_bhwc)
        return wave_bhwc

    @staticmethod
    def backward(ctx, grad):
        cosine, sine, wave_bhwc = ctx.saved_tensor()
        found = [paddle.empty_like(cosine), paddle.empty_like(cosine)]
        call("unfold_wave_gradient", cosine, sine, wave_bhwc, dense(grad), *found, *rows_of(cosine, 0)[:2])
        return wanted(ctx, *((lambda f=f: f) for f in found))


def unfold_wave(amplitude_bhwc, phase_bhwc):
    """``[amplitude cos(phase), amplitude sin(phase)]``, [B, H, W, 2 C]."""
    return _UnfoldWave.apply(amplitude_bhwc, phase_bhwc)


class _PairMix(PyLayer):
    @staticmethod
    def forward(ctx, x_bhwc, weight):
        note_wanted(ctx, x_bhwc, weight)
        x_bhwc = dense(x_bhwc)
        ctx.save_for_backward(x_bhwc, weight)
        channels, _, height, width = weight.shape
        ctx.sizes = (*x_bhwc.shape[:3], channels, height * width, 1 if width == 1 else 2)
        y_bhwc = paddle.empty([*x_bhwc.shape[:3], channels])
        call("pair_mix", x_bhwc, weight, y_bhwc, *ctx.sizes)
        return y_bhwc

    @staticmethod
    def backward(ctx, grad):
        x_bhwc, weight = ctx.saved_tensor()
        grad = dense(grad)

        def input_gradient():
            dx_bhwc = paddle.empty_like(x_bhwc)
            call("pair_mix_gradient", grad, weight, dx_bhwc, *ctx.sizes)
            return dx_bhwc

        def weight_gradient():
            dweight = paddle.empty_like(weight)
            call("pair_mix_weight_gradient", x_bhwc, grad, dweight, *ctx.sizes)
            return dweight

        return wanted(ctx, input_gradient, weight_gradient)


def pair_mix(x_bhwc, weight):
    """Convolution along one axis that keeps the size, of two channels a group and zeros outside; no bias.

    Args:
        x_bhwc: [B, H, W, 2 C].
        weight: [C, 2, k, 1] along the height or [C, 2, 1, k] along the width, k odd; output channel c reads the
            channels 2 c and 2 c + 1.
    Returns:
        [B, H, W, C].
    """
    return _PairMix.apply(x_bhwc, weight)
