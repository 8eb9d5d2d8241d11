"""Operators on maps by the compiled passes of ``passl_mixer.native``: CycleFC's shift, weighted branches, convolution.

They want ``ops.compiled(x)``; callers take Paddle's operators elsewhere. Not differentiable twice.
Shapes: maps [B, H, W, C], except for ``conv2d``, which takes and gives [B, C, H, W].
"""
import ctypes

import paddle
from paddle.autograd import PyLayer

from passl_mixer import native
from passl_mixer.backbones.ops import call, compiled, dense, note_wanted, wanted


class _CycleShift(PyLayer):
    @staticmethod
    def forward(ctx, x_bhwc, axis):
        ctx.axis = axis
        x_bhwc = dense(x_bhwc)
        y_bhwc = paddle.empty_like(x_bhwc)
        call("cycle_shift", x_bhwc, y_bhwc, *x_bhwc.shape, axis, 1)
        return y_bhwc

    @staticmethod
    def backward(ctx, grad):
        grad = dense(grad)
        found = paddle.empty_like(grad)
        call("cycle_shift", grad, found, *grad.shape, ctx.axis, -1)
        return found


def cycle_shift(x_bhwc, axis: int):
    """Channel i of [B, H, W, C] read from position 0, +1, -1 along ``axis`` for i % 3 = 0, 1, 2.

    Args:
        axis: 1 reads along the height, 2 along the width; what lies outside is 0.
    """
    return _CycleShift.apply(x_bhwc, axis)


class _BranchMean(PyLayer):
    @staticmethod
    def forward(ctx, *branches):
        note_wanted(ctx, *branches)
        ctx.shape = batch, height, width, channels = branches[0].shape
        mean_bc = paddle.empty([batch, channels])
        call("branch_mean", *map(dense, branches), mean_bc, batch, height * width, channels)
        return mean_bc

    @staticmethod
    def backward(ctx, grad):
        batch, height, width, channels = ctx.shape

        def spread():
            found = paddle.empty(ctx.shape)
            call("branch_mean_gradient", dense(grad), found, batch, height * width, channels)
            return found

        # one tensor each: Paddle adds into the gradients it is given
        return wanted(ctx, spread, spread, spread)


def branch_mean(branches):
    """Mean over positions, [B, C], of the sum of three maps [B, H, W, C]."""
    return _BranchMean.apply(*branches)


class _WeighBranches(PyLayer):
    @staticmethod
    def forward(ctx, *branches_and_shares):
        tensors = [dense(t) for t in branches_and_shares]
        note_wanted(ctx, *branches_and_shares)
        ctx.save_for_backward(*tensors)
        batch, height, width, channels = tensors[0].shape
        y_bhwc = paddle.empty_like(tensors[0])
        call("weigh_branches", *tensors, y_bhwc, batch, height * width, channels)
        return y_bhwc

    @staticmethod
    def backward(ctx, grad):
        tensors = ctx.saved_tensor()
        found = [paddle.empty_like(t) for t in tensors]
        batch, height, width, channels = grad.shape
        call("weigh_branches_gradient", *tensors, dense(grad), *found, batch, height * width, channels)
        return wanted(ctx, *((lambda f=f: f) for f in found))


def weigh_branches(branches, shares_bc):
    """Sum of three maps [B, H, W, C], each multiplied by its share [B, C]."""
    return _WeighBranches.apply(*branches, *shares_bc)


def convolves(x, groups: int) -> bool:
    """Whether ``conv2d`` applies: ``compiled(x)``, one group, and a Paddle that brings MKL."""
    return groups == 1 and compiled(x) and bool(native.load().has_products())


def _sizes(x, weight, stride: int, padding: int):
    return (ctypes.c_int64 * 9)(*x.shape, weight.shape[0], *weight.shape[2:], stride, padding)


class _Conv2D(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        note_wanted(ctx, x, weight, *([] if bias is None else [bias]))
        x = dense(x)
        ctx.stride, ctx.padding = stride, padding
        ctx.save_for_backward(x, weight)
        sides = [(side + 2 * padding - kernel) // stride + 1 for side, kernel in zip(x.shape[2:], weight.shape[2:])]
        y = paddle.empty([x.shape[0], weight.shape[0], *sides])
        call("convolution", x, weight, bias, y, _sizes(x, weight, stride, padding))
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensor()
        found = [paddle.empty_like(x) if ctx.wanted[0] else None, paddle.empty_like(weight),
                 paddle.empty([weight.shape[0]]) if len(ctx.wanted) == 3 else None]
        call("convolution_gradient", x, weight, dense(grad), *found, _sizes(x, weight, ctx.stride, ctx.padding))
        return wanted(ctx, *((lambda f=f: f) for f in found))


def conv2d(x, weight, bias, *, stride: int, padding: int):
    """Convolution of [B, C, H, W] with [O, C, kernel_h, kernel_w], zeros around; bias [O] or None."""
    return _Conv2D.apply(x, weight, bias, stride, padding)


class _Depthwise(PyLayer):
    @staticmethod
    def forward(ctx, x_bhwc, weight, bias):
        note_wanted(ctx, x_bhwc, weight, *([] if bias is None else [bias]))
        x_bhwc = dense(x_bhwc)
        ctx.save_for_backward(x_bhwc, weight)
        y_bhwc = paddle.empty_like(x_bhwc)
        call("depthwise", x_bhwc, weight, bias, y_bhwc, *x_bhwc.shape, weight.shape[-1], 0)
        return y_bhwc

    @staticmethod
    def backward(ctx, grad):
        x_bhwc, weight = ctx.saved_tensor()
        grad, dweight = dense(grad), paddle.empty_like(weight)
        dbias = paddle.empty([weight.shape[0]]) if len(ctx.wanted) == 3 else None
        if any(ctx.wanted[1:]):
            call("depthwise_weights_gradient", x_bhwc, grad, dweight, dbias, *x_bhwc.shape, weight.shape[-1])

        def input_gradient():
            dx_bhwc = paddle.empty_like(x_bhwc)
            call("depthwise", grad, weight, None, dx_bhwc, *x_bhwc.shape, weight.shape[-1], 1)
            return dx_bhwc

        return wanted(ctx, input_gradient, lambda: dweight, lambda: dbias)


def depthwise(x_bhwc, weight, bias):
    """Depth-wise convolution of [B, H, W, C] that keeps the size; weight [C, 1, k, k], k odd; bias [C] or None."""
    return _Depthwise.apply(x_bhwc, weight, bias)
