"""Two linear maps with an activation between them, over the last or the token axis; products of batches of matrices.

As one operator, because in bfloat16 the hidden units need not become float32 between the two products.
"""
import math
from typing import Optional

import paddle

from passl_mixer.ops.activations import GELUS
from passl_mixer.ops.bfloat16 import narrow, narrow_gradient, no_second_derivatives, product, rows_of, sum_of_images
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call
from passl_mixer.ops.products import linear, token_linear
from passl_mixer.ops.table import Implementation, Operator


def mlp(x, weight1, bias1, weight2, bias2, act: Optional[str]):
    """Linear, activation, linear over the last axis.

    Args:
        x: [..., I].
        weight1: [I, H].
        bias1: [H].
        weight2: [H, O].
        bias2: [O].
        act: as of ``activate``.
    Returns:
        [..., O].
    """
    return MLP(x, weight1, bias1, weight2, bias2, act)


def _mlp(x, weight1, bias1, weight2, bias2, act):
    return linear(linear(x, weight1, bias1, act), weight2, bias2)


def token_mlp(x_bsc, weight1, bias1, weight2, bias2, act: Optional[str]):
    """Linear, activation, linear over the token axis.

    Args:
        x_bsc: tokens [B, S, C].
        weight1: [H, S].
        bias1: [H].
        weight2: [O, H].
        bias2: [O].
        act: as of ``activate``.
    Returns:
        [B, O, C].
    """
    return TOKEN_MLP(x_bsc, weight1, bias1, weight2, bias2, act)


def _token_mlp(x_bsc, weight1, bias1, weight2, bias2, act):
    return token_linear(token_linear(x_bsc, weight1, bias1, act), weight2, bias2)


def _accepts_mlp(x, weight1, bias1, weight2, bias2, act) -> bool:
    widths = [x.shape[-1], weight1.shape[-1], weight2.shape[-1]]
    return (act in GELUS and x.ndim > 1 and 0 not in x.shape and 0 not in widths
            and weight1.shape == widths[:2] and weight2.shape == widths[1:]
            and (None if bias1 is None else bias1.shape, None if bias2 is None else bias2.shape) == (widths[1:2],
                                                                                                      widths[2:]))


def _accepts_token_mlp(x_bsc, weight1, bias1, weight2, bias2, act) -> bool:
    tokens, hidden, outputs = x_bsc.shape[1], weight1.shape[0], weight2.shape[0]
    return (act in GELUS and x_bsc.ndim == 3 and 0 not in [*x_bsc.shape, hidden, outputs]
            and weight1.shape == [hidden, tokens] and weight2.shape == [outputs, hidden]
            and bias1.shape == [hidden] and bias2.shape == [outputs])


def _gelu(z, act: str):
    h = empty(z.shape, paddle.bfloat16)
    call(f"narrow_gelu_{GELUS[act]}", z, h, math.prod(z.shape))
    return h


def _gelu_gradient(z, dh, act: str, units: int):
    """The gradient before a GELU, in the memory of ``dh``, and its sums, which are a bias gradient."""
    dbias = empty([units or z.shape[-1]])
    call(f"narrow_gelu_{GELUS[act]}_gradient", z, dh, dh, dbias, math.prod(z.shape[:-1]), z.shape[-1], units)
    return dh, dbias


class _Mlp:
    """Linear, GELU, linear over the last axis."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, act):
        rows, first, second = narrow(rows_of(x)), narrow(weight1), narrow(weight2)
        shape = [*x.shape[:-1], weight2.shape[1]]
        if not any(ctx.needs_grad):
            h = product(rows, first, bias=bias1, act=act, dtype=paddle.bfloat16)
            return product(h, second, bias=bias2).reshape(shape)
        z = product(rows, first, bias=bias1, dtype=paddle.bfloat16)
        h = _gelu(z, act)
        ctx.x, ctx.z, ctx.h, ctx.first, ctx.second, ctx.act, ctx.shape = rows, z, h, first, second, act, x.shape
        return product(h, second, bias=bias2).reshape(shape)

    @staticmethod
    def gradients(ctx, dy):
        dy, dbias2 = narrow_gradient(rows_of(dy), 0)
        dh = product(dy, ctx.second, transposed_b=True, dtype=paddle.bfloat16)
        dz, dbias1 = _gelu_gradient(ctx.z, dh, ctx.act, 0)
        return (lambda: product(dz, ctx.first, transposed_b=True).reshape(ctx.shape),
                lambda: product(ctx.x, dz, transposed_a=True), dbias1,
                lambda: product(ctx.h, dy, transposed_a=True), dbias2)


class _TokenMlp:
    """Linear, GELU, linear over the token axis."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, x_bsc, weight1, bias1, weight2, bias2, act):
        x, first, second = narrow(x_bsc), narrow(weight1), narrow(weight2)
        if not any(ctx.needs_grad):
            h = product(first, x, bias=bias1, bias_of_rows=True, act=act, dtype=paddle.bfloat16)
            return product(second, h, bias=bias2, bias_of_rows=True)
        z = product(first, x, bias=bias1, bias_of_rows=True, dtype=paddle.bfloat16)
        h = _gelu(z, act)
        ctx.x, ctx.z, ctx.h, ctx.first, ctx.second, ctx.act = x, z, h, first, second, act
        return product(second, h, bias=bias2, bias_of_rows=True)

    @staticmethod
    def gradients(ctx, dy):
        dy, dbias2 = narrow_gradient(dy, dy.shape[1])
        dh = product(ctx.second, dy, transposed_a=True, dtype=paddle.bfloat16)
        dz, dbias1 = _gelu_gradient(ctx.z, dh, ctx.act, dh.shape[1])
        return (lambda: product(ctx.first, dz, transposed_a=True),
                lambda: sum_of_images(product(dz, ctx.x, transposed_b=True)), dbias1,
                lambda: sum_of_images(product(dy, ctx.h, transposed_b=True)), dbias2)


MLP = Operator("mlp", 5, _mlp, bf16=[Implementation(
    _accepts_mlp, lambda *call: apply(_Mlp, call[:5], call[5]))])
TOKEN_MLP = Operator("token_mlp", 5, _token_mlp, bf16=[Implementation(
    _accepts_token_mlp, lambda *call: apply(_TokenMlp, call[:5], call[5]))])


def matmul(a, b, transposed_b: bool = False):
    """Products of the matrices of two batches.

    Args:
        a: [..., M, K].
        b: [..., K, N], or [..., N, K] if ``transposed_b``; the axes before the last two as of ``a``.
        transposed_b: whether the matrices of ``b`` are transposed.
    Returns:
        [..., M, N].
    """
    return MATMUL(a, b, transposed_b)


def _accepts_matmul(a, b, transposed_b) -> bool:
    inner = b.shape[-1] if transposed_b else b.shape[-2]
    return (a.ndim == b.ndim >= 3 and a.shape[:-2] == b.shape[:-2] and 0 not in a.shape and 0 not in b.shape
            and a.shape[-1] == inner)


class _Matmul:
    """Products of the matrices of two batches."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, a, b, transposed_b):
        ctx.shapes, ctx.transposed_b = (a.shape, b.shape), transposed_b
        ctx.a, ctx.b = (narrow(x.reshape([-1, *x.shape[-2:]])) for x in (a, b))
        y = product(ctx.a, ctx.b, transposed_b=transposed_b)
        return y.reshape([*a.shape[:-1], y.shape[-1]])

    @staticmethod
    def gradients(ctx, dy):
        dy = narrow(dy.reshape([-1, *dy.shape[-2:]]))
        a_shape, b_shape = ctx.shapes

        def of_b():
            left, right = (dy, ctx.a) if ctx.transposed_b else (ctx.a, dy)
            return product(left, right, transposed_a=True).reshape(b_shape)

        return lambda: product(dy, ctx.b, transposed_b=not ctx.transposed_b).reshape(a_shape), of_b


MATMUL = Operator("matmul", 2, lambda a, b, transposed_b: paddle.matmul(a, b, transpose_y=transposed_b),
                  bf16=[Implementation(_accepts_matmul, lambda a, b, t: apply(_Matmul, [a, b], t))])
