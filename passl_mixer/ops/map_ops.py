"""Operators on maps by ``passl_mixer.ops.native``: CycleFC's shift, weighted branches, convolution.

They want ``ops.compiled(x)``; callers take Paddle's operators elsewhere.
Shapes: maps [B, H, W, C], except for ``conv2d``, which takes and gives [B, C, H, W].
"""
import ctypes

import paddle
import paddle.nn.functional as F

from passl_mixer.ops import native
from passl_mixer.ops.cpu import compiled
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


class _CycleShift:
    @staticmethod
    def forward(ctx, x_bhwc, axis, sign):
        ctx.axis, ctx.sign, y_bhwc = axis, sign, paddle.empty(x_bhwc.shape)
        call("cycle_shift", dense(x_bhwc), y_bhwc, *x_bhwc.shape, axis, sign)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_CycleShift, [dy], ctx.axis, -ctx.sign)]

    plain_gradients = gradients


def cycle_shift(x_bhwc, axis: int):
    """Channel i of [B, H, W, C] read from position 0, +1, -1 along ``axis`` for i % 3 = 0, 1, 2.

    Args:
        axis: 1 reads along the height, 2 along the width; what lies outside is 0.
    """
    return apply(_CycleShift, [x_bhwc], axis, 1)


class _BranchMean:
    @staticmethod
    def forward(ctx, *branches):
        ctx.shape = batch, height, width, channels = branches[0].shape
        mean_bc = paddle.empty([batch, channels])
        call("branch_mean", *map(dense, branches), mean_bc, batch, height * width, channels)
        return mean_bc

    @staticmethod
    def gradients(ctx, dy):
        batch, height, width, channels = ctx.shape
        dy = dense(dy)

        def spread():
            found = paddle.empty(ctx.shape)
            call("branch_mean_gradient", dy, found, batch, height * width, channels)
            return found

        # one tensor each: Paddle adds into the gradients it is given
        return spread, spread, spread

    @staticmethod
    def plain_gradients(ctx, dy):
        _, height, width, _ = ctx.shape

        def spread():
            return paddle.tile((dy / (height * width)).unsqueeze([1, 2]), [1, height, width, 1])

        return spread, spread, spread


def branch_mean(branches):
    """Mean over positions, [B, C], of the sum of three maps [B, H, W, C]."""
    return apply(_BranchMean, list(branches))


class _WeighBranches:
    @staticmethod
    def forward(ctx, *branches_and_shares):
        ctx.tensors = branches_and_shares
        batch, height, width, channels = ctx.tensors[0].shape
        y_bhwc = paddle.empty(ctx.tensors[0].shape)
        call("weigh_branches", *map(dense, ctx.tensors), y_bhwc, batch, height * width, channels)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        found = [paddle.empty(t.shape) for t in ctx.tensors]
        batch, height, width, channels = dy.shape
        call("weigh_branches_gradient", *map(dense, ctx.tensors), dense(dy), *found, batch, height * width, channels)
        return found

    @staticmethod
    def plain_gradients(ctx, dy):
        branches, shares = ctx.tensors[:3], ctx.tensors[3:]
        return (*(lambda share=share: dy * share.unsqueeze([1, 2]) for share in shares),
                *(lambda branch=branch: (dy * branch).sum([1, 2]) for branch in branches))


def weigh_branches(branches, shares_bc):
    """Sum of three maps [B, H, W, C], each multiplied by its share [B, C]."""
    return apply(_WeighBranches, [*branches, *shares_bc])


def conv_gradients(x, weight, dy, *, stride: int, padding, groups: int):
    """The gradients of a convolution by differentiable operators.

    Args:
        x: [B, groups * I, H, W].
        weight: [groups * O, I, kernel_h, kernel_w].
        dy: gradient of the result, [B, groups * O, h, w].
        padding: a number, or that of the height and that of the width.
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
        found = F.conv2d(maps.reshape([in_chans // groups, groups * batch, *sides]), kernels, padding=padding,
                         dilation=stride, groups=groups)
        return found[:, :, :kernel[0], :kernel[1]].transpose([1, 0, 2, 3])

    return input_gradient, weight_gradient


def convolves(x, groups: int) -> bool:
    """Whether ``conv2d`` applies: ``compiled(x)``, one group, and a Paddle that brings MKL."""
    return groups == 1 and compiled(x) and bool(native.load().has_products())


def _sizes(x, weight, stride: int, padding: int):
    return (ctypes.c_int64 * 9)(*x.shape, weight.shape[0], *weight.shape[2:], stride, padding)


class _Conv2D:
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        ctx.x, ctx.weight, ctx.stride, ctx.padding = x, weight, stride, padding
        sides = [(side + 2 * padding - kernel) // stride + 1 for side, kernel in zip(x.shape[2:], weight.shape[2:])]
        y = paddle.empty([x.shape[0], weight.shape[0], *sides])
        call("convolution", dense(x), weight, bias, y, _sizes(x, weight, stride, padding))
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        found = [paddle.empty(x.shape) if ctx.wanted[0] else None, paddle.empty(weight.shape),
                 paddle.empty([weight.shape[0]]) if ctx.wanted[2] else None]
        call("convolution_gradient", dense(x), weight, dense(dy), *found, _sizes(x, weight, ctx.stride, ctx.padding))
        return found

    @staticmethod
    def plain_gradients(ctx, dy):
        return (*conv_gradients(ctx.x, ctx.weight, dy, stride=ctx.stride, padding=ctx.padding, groups=1),
                lambda: dy.sum([0, 2, 3]))


def conv2d(x, weight, bias, *, stride: int, padding: int):
    """Convolution of [B, C, H, W] with [O, C, kernel_h, kernel_w], zeros around; bias [O] or None."""
    return apply(_Conv2D, [x, weight, bias], stride, padding)


class _Depthwise:
    @staticmethod
    def forward(ctx, x_bhwc, weight, bias):
        ctx.x, ctx.weight, y_bhwc = x_bhwc, weight, paddle.empty(x_bhwc.shape)
        call("depthwise", dense(x_bhwc), weight, bias, y_bhwc, *x_bhwc.shape, weight.shape[-1], 0)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        x_bhwc, weight, dy = ctx.x, ctx.weight, dense(dy)
        dweight, dbias = paddle.empty(weight.shape), paddle.empty([weight.shape[0]]) if ctx.wanted[2] else None
        if any(ctx.wanted[1:]):
            call("depthwise_weights_gradient", dense(x_bhwc), dy, dweight, dbias, *x_bhwc.shape, weight.shape[-1])

        def input_gradient():
            dx_bhwc = paddle.empty(x_bhwc.shape)
            call("depthwise", dy, weight, None, dx_bhwc, *x_bhwc.shape, weight.shape[-1], 1)
            return dx_bhwc

        return input_gradient, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        input_gradient, weight_gradient = conv_gradients(
            ctx.x.transpose([0, 3, 1, 2]), ctx.weight, dy.transpose([0, 3, 1, 2]), stride=1,
            padding=ctx.weight.shape[-1] // 2, groups=dy.shape[-1])
        return lambda: input_gradient().transpose([0, 2, 3, 1]), weight_gradient, lambda: dy.sum([0, 1, 2])


def depthwise(x_bhwc, weight, bias):
    """Depth-wise convolution of [B, H, W, C] that keeps the size; weight [C, 1, k, k], k odd; bias [C] or None."""
    return apply(_Depthwise, [x_bhwc, weight, bias])
