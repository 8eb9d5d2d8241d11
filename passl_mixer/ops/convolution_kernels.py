"""Convolutions as ``gradients.apply`` takes them: depth-wise and of pairs by native kernels, and in bfloat16.

Also the gradients of every convolution by differentiable operators.
"""
import paddle.nn.functional as F

from passl_mixer.ops.bfloat16 import narrow, narrow_gradient, no_second_derivatives
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]        # axes of [B, H, W, C] in [B, C, H, W], and the way back


def conv_gradients(x, weight, dy, *, stride: int, padding, groups: int):
    """The gradients of a convolution by differentiable operators.

    Args:
        x: [B, groups * I, H, W].
        weight: [groups * O, I, kernel_h, kernel_w].
        dy: gradient of the result, [B, groups * O, h, w].
        stride: of the convolution.
        padding: a number, or that of the height and that of the width.
        groups: of the convolution.
    Returns:
        Functions that give the gradients of x and of the weight.
    """
    batch, in_chans, *sides = x.shape
    out_chans, *kernel = weight.shape[0], *weight.shape[2:]

    def input_gradient():
        return F.conv2d_transpose(dy, weight, stride=stride, padding=padding, groups=groups, output_size=sides)

    def weight_gradient():
        # a convolution in which images and the channels of a group change places, and dy is the kernel
        maps = x.reshape([batch, groups, in_chans // groups, *sides]).transpose([2, 1, 0, 3, 4])
        kernels = dy.reshape([batch, out_chans, *dy.shape[2:]]).transpose([1, 0, 2, 3])
        y = F.conv2d(maps.reshape([in_chans // groups, groups * batch, *sides]), kernels, padding=padding,
                     dilation=stride, groups=groups)
        return y[:, :, :kernel[0], :kernel[1]].transpose([1, 0, 2, 3])

    return input_gradient, weight_gradient


class Depthwise:
    """Of [B, H, W, C] with [C, 1, k, k], k odd; keeps the size."""

    @staticmethod
    def forward(ctx, x_bhwc, weight, bias):
        """The convolution.

        Args:
            ctx: of the call.
            x_bhwc: [B, H, W, C].
            weight: [C, 1, k, k].
            bias: [C], or None.
        """
        ctx.x, ctx.weight, y_bhwc = x_bhwc, weight, empty(x_bhwc.shape)
        call("depthwise", dense(x_bhwc), dense(weight), None if bias is None else dense(bias), y_bhwc, *x_bhwc.shape,
             weight.shape[-1], 0)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        x_bhwc, weight, dy = ctx.x, dense(ctx.weight), dense(dy)
        dweight, dbias = empty(weight.shape), empty([weight.shape[0]]) if ctx.needs_grad[2] else None
        if any(ctx.needs_grad[1:]):
            call("depthwise_weights_gradient", dense(x_bhwc), dy, dweight, dbias, *x_bhwc.shape, weight.shape[-1])

        def input_gradient():
            dx_bhwc = empty(x_bhwc.shape)
            call("depthwise", dy, weight, None, dx_bhwc, *x_bhwc.shape, weight.shape[-1], 1)
            return dx_bhwc

        return input_gradient, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        input_gradient, weight_gradient = conv_gradients(
            ctx.x.transpose(FIRST), ctx.weight, dy.transpose(FIRST), stride=1, padding=ctx.weight.shape[-1] // 2,
            groups=dy.shape[-1])
        return lambda: input_gradient().transpose(LAST), weight_gradient, lambda: dy.sum([0, 1, 2])


class PairMix:
    """Of [B, H, W, 2 C] with [C, 2, k, 1] or [C, 2, 1, k], k odd; keeps the size. No bias."""

    @staticmethod
    def forward(ctx, x_bhwc, weight):
        """The convolution.

        Args:
            ctx: of the call.
            x_bhwc: [B, H, W, 2 C].
            weight: [C, 2, k, 1] or [C, 2, 1, k].
        """
        channels, _, height, width = weight.shape
        ctx.x, ctx.weight = x_bhwc, weight
        ctx.sizes = (*x_bhwc.shape[:3], channels, height * width, 1 if width == 1 else 2)
        y_bhwc = empty([*x_bhwc.shape[:3], channels])
        call("pair_mix", dense(x_bhwc), dense(weight), y_bhwc, *ctx.sizes)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        dy = dense(dy)

        def input_gradient():
            dx_bhwc = empty(ctx.x.shape)
            call("pair_mix_gradient", dy, dense(ctx.weight), dx_bhwc, *ctx.sizes)
            return dx_bhwc

        def weight_gradient():
            dweight = empty(ctx.weight.shape)
            call("pair_mix_weight_gradient", dense(ctx.x), dy, dweight, *ctx.sizes)
            return dweight

        return input_gradient, weight_gradient

    @staticmethod
    def plain_gradients(ctx, dy):
        channels, _, height, width = ctx.weight.shape
        input_gradient, weight_gradient = conv_gradients(
            ctx.x.transpose(FIRST), ctx.weight, dy.transpose(FIRST), stride=1, padding=[height // 2, width // 2],
            groups=channels)
        return lambda: input_gradient().transpose(LAST), weight_gradient


class InBfloat16:
    """Of [B, H, W, I] with [O, I, kernel height, kernel width], without groups, in bfloat16."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, x_bhwc, weight, bias, stride, padding):
        """The convolution.

        Args:
            ctx: of the call.
            x_bhwc: [B, H, W, I].
            weight: [O, I, kernel height, kernel width].
            bias: [O], or None.
            stride: positions between outputs.
            padding: zeros along the height and along the width.
        """
        ctx.x, ctx.weight = narrow(x_bhwc), dense(weight)
        sides = [(side + 2 * zeros - kernel) // stride + 1
                 for side, zeros, kernel in zip(x_bhwc.shape[1:3], padding, weight.shape[2:])]
        batch, height, width, channels = x_bhwc.shape
        ctx.sizes = [batch, channels, height, width, weight.shape[0], *weight.shape[2:], stride, *padding]
        y_bhwc = empty([batch, *sides, weight.shape[0]])
        call("bf16_convolution", ctx.x, ctx.weight, None if bias is None else dense(bias), y_bhwc, ctx.sizes)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        dy, dbias = narrow_gradient(dy, 0)

        def of_input():
            dx_bhwc = empty(ctx.x.shape)
            call("bf16_convolution_input_gradient", dy, ctx.weight, dx_bhwc, ctx.sizes)
            return dx_bhwc

        def of_weight():
            dweight = empty(ctx.weight.shape)
            call("bf16_convolution_weight_gradient", ctx.x, dy, dweight, ctx.sizes)
            return dweight

        return of_input, of_weight, dbias
