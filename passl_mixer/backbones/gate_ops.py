"""What gMLP's gate does on a CPU by compiled passes: halves of the channels, and the product of two tensors.

Paddle splits, joins and multiplies on one thread. For tensors that are ``ops.compiled``; not differentiable twice.
"""
import math

import paddle
from paddle.autograd import PyLayer

from passl_mixer.backbones.ops import call, dense, note_wanted, wanted


def _rows(shape) -> tuple:
    """``(rows, half)`` of [..., 2 * half]."""
    return math.prod(shape[:-1]), shape[-1] // 2


class _Halves(PyLayer):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        halves = [paddle.empty([*x.shape[:-1], x.shape[-1] // 2]) for _ in range(2)]
        call("split_halves", dense(x), *halves, *_rows(x.shape))
        return tuple(halves)

    @staticmethod
    def backward(ctx, *gradients):
        dx = paddle.empty(ctx.shape)
        call("join_halves", *map(dense, gradients), dx, *_rows(ctx.shape))
        return dx


def halves(x):
    """The first and the second half of the last axis, which is even, each a tensor of its own."""
    return _Halves.apply(x)


class _Product(PyLayer):
    @staticmethod
    def forward(ctx, a, b):
        note_wanted(ctx, a, b)
        a, b, y = dense(a), dense(b), paddle.empty(a.shape)
        ctx.save_for_backward(a, b)
        call("product", a, b, y, math.prod(a.shape))
        return y

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensor()
        found = [paddle.empty(a.shape) for _ in range(2)]
        call("product_gradient", a, b, dense(grad), *found, math.prod(a.shape))
        return wanted(ctx, *((lambda f=f: f) for f in found))


def product(a, b):
    """``a * b`` of two tensors of one shape."""
    return _Product.apply(a, b)
