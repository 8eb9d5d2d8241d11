"""What gMLP's gate does on a CPU by compiled passes: halves of the channels, and the product of two tensors.

Paddle splits, joins and multiplies on one thread. For tensors that are ``ops.compiled``.
"""
import math

import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


def _rows(shape) -> tuple:
    """``(rows, half)`` of [..., 2 * half]."""
    return math.prod(shape[:-1]), shape[-1] // 2


class _Halves:
    @staticmethod
    def forward(ctx, x):
        parts = [paddle.empty([*x.shape[:-1], x.shape[-1] // 2]) for _ in range(2)]
        call("split_halves", dense(x), *parts, *_rows(x.shape))
        return tuple(parts)

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_Join, dy)]

    plain_gradients = gradients


class _Join:
    @staticmethod
    def forward(ctx, *parts):
        y = paddle.empty([*parts[0].shape[:-1], 2 * parts[0].shape[-1]])
        call("join_halves", *map(dense, parts), y, *_rows(y.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        return halves(dy)

    plain_gradients = gradients


def halves(x):
    """The first and the second half of the last axis, which is even, each a tensor of its own."""
    return apply(_Halves, [x])


class _Product:
    @staticmethod
    def forward(ctx, a, b):
        ctx.a, ctx.b, y = a, b, paddle.empty(a.shape)
        call("product", dense(a), dense(b), y, math.prod(a.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        found = [paddle.empty(dy.shape) for _ in range(2)]
        call("product_gradient", dense(ctx.a), dense(ctx.b), dense(dy), *found, math.prod(dy.shape))
        return found

    @staticmethod
    def plain_gradients(ctx, dy):
        return lambda: dy * ctx.b, lambda: dy * ctx.a


def product(a, b):
    """``a * b`` of two tensors of one shape."""
    return apply(_Product, [a, b])
