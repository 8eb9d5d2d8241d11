"""Products in bfloat16 on a CPU: what goes in is rounded to bfloat16, sums are float32, what comes out is float32.

This is what the column ``bf16`` of the table is made of, and its linear maps. Tensors between operators stay float32,
and so do parameters, their gradients, norms and losses. The backward pass rounds gradients as the forward pass rounds
activations. For it, rounded copies are kept in place of the inputs.

Shapes: B images, S tokens, I units in, O units out, R rows.
"""
import math
from typing import Optional

import paddle

from passl_mixer.errors import BadInput
from passl_mixer.ops.activations import activate
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense

ACTS = {None: 0, "gelu": 1, "gelu_tanh": 2}         # as bf16_product takes them


def narrow(x):
    """X [...] rounded to bfloat16, of its shape."""
    if x.dtype == paddle.bfloat16:
        return dense(x)
    y = empty(x.shape, paddle.bfloat16)
    call("narrow", dense(x), y, math.prod(x.shape))
    return y


def narrow_gradient(dy, units: int):
    """A gradient in bfloat16, and its sums, which are a bias gradient.

    Args:
        dy: [..., O], or [..., S, O].
        units: length of the bias if it lies along the second-last axis, 0 if along the last.
    Returns:
        ``(dy in bfloat16, dbias)``.
    """
    y, dbias = empty(dy.shape, paddle.bfloat16), empty([units or dy.shape[-1]])
    call("narrow_gradient", dense(dy), y, dbias, math.prod(dy.shape[:-1]), dy.shape[-1], units)
    return y, dbias


def product(a, b, *, bias=None, transposed_a: bool = False, transposed_b: bool = False, bias_of_rows: bool = False,
            act: Optional[str] = None, dtype=paddle.float32):
    """``act(a @ b + bias)`` of matrices or batches of them, all bfloat16 but the float32 bias.

    Args:
        a: [M, K], or [B, M, K]. Without a batch it meets every matrix of ``b``.
        b: [K, N], or [B, K, N].
        bias: [N], or None.
        transposed_a: ``a`` is [K, M], or [B, K, M].
        transposed_b: ``b`` is [N, K], or [B, N, K].
        bias_of_rows: ``bias`` is [M].
        act: a GELU, or None.
        dtype: of the result.
    Returns:
        [M, N], or [B, M, N] if one of the two has a batch.
    """
    batch_a, batch_b = (1 if x.ndim == 2 else x.shape[0] for x in (a, b))
    m, k = a.shape[-2:][::-1] if transposed_a else a.shape[-2:]
    n = b.shape[-2] if transposed_b else b.shape[-1]
    y = empty([m, n] if a.ndim == b.ndim == 2 else [max(batch_a, batch_b), m, n], dtype)
    name = "bf16_product" if dtype == paddle.float32 else "bf16_product_narrow"
    call(name, a, b, None if bias is None else dense(bias), y, batch_a, batch_b, m, n, k,
         int(transposed_a), int(transposed_b), int(bias_of_rows), ACTS[act])
    return y


def rows_of(x):
    """X [..., C] as rows, [R, C]."""
    return x.reshape([-1, x.shape[-1]])


def sum_of_images(x):
    """The sum of x [B, O, I] over its first axis; as a product with ones, because Paddle's sum runs on one thread."""
    return paddle.matmul(paddle.ones([1, x.shape[0]]), x.reshape([x.shape[0], -1])).reshape(x.shape[1:])


def no_second_derivatives(_ctx, _dy):
    """``plain_gradients`` of what computes in bfloat16, of any shape [...].

    Raises:
        BadInput: always.
    """
    raise BadInput("a gradient of gradients (create_graph=True) was requested of products in bfloat16, which have "
                   "first derivatives only on a CPU; compute in float32: train.precision=fp32, or without auto_cast")


class _Linear:
    """A linear map over the last axis, as ``gradients.apply`` takes it."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.x, ctx.weight, ctx.shape = narrow(rows_of(x)), narrow(weight), x.shape
        return product(ctx.x, ctx.weight, bias=bias).reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def gradients(ctx, dy):
        dy, dbias = narrow_gradient(rows_of(dy), 0)
        return (lambda: product(dy, ctx.weight, transposed_b=True).reshape(ctx.shape),
                lambda: product(ctx.x, dy, transposed_a=True), dbias)


class _TokenLinear:
    """A linear map over the token axis."""

    plain_gradients = staticmethod(no_second_derivatives)

    @staticmethod
    def forward(ctx, x_bsc, weight, bias):
        ctx.x, ctx.weight = narrow(x_bsc), narrow(weight)
        return product(ctx.weight, ctx.x, bias=bias, bias_of_rows=True)

    @staticmethod
    def gradients(ctx, dy):
        dy, dbias = narrow_gradient(dy, dy.shape[1])
        return (lambda: product(ctx.weight, dy, transposed_a=True),
                lambda: sum_of_images(product(dy, ctx.x, transposed_b=True)), dbias)


def linear(x, weight, bias, act):
    """``ops.linear`` with its product in bfloat16.

    Args:
        x: [..., I].
        weight: [I, O].
        bias: [O], or None.
        act: as of ``activate``.
    Returns:
        [..., O].
    """
    return activate(apply(_Linear, [x, weight, bias]), act)


def token_linear(x_bsc, weight, bias, act):
    """``ops.token_linear`` with its product in bfloat16.

    Args:
        x_bsc: [B, S, C].
        weight: [O, S].
        bias: [O].
        act: as of ``activate``.
    Returns:
        [B, O, C].
    """
    return activate(apply(_TokenLinear, [x_bsc, weight, bias]), act)
