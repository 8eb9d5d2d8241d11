"""Linear maps over the last or the token axis, with or without an activation after them.

On a CPU the bias, and the GELU where one is named, are one pass of a native kernel after the matrix product; Paddle's
kernel for the gradient of a bias runs on one thread and costs more than the product beside it.
"""
import functools
import math
from typing import Callable, Optional

import paddle
import paddle.nn.functional as F

from passl_mixer.ops import bfloat16
from passl_mixer.ops.activations import GELUS, activate, gelu_slope
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator
from passl_mixer.ops.twice import differentiable_twice


def linear(x, weight, bias=None, act: Optional[str] = None):
    """``x @ weight + bias`` over the last axis, then an activation.

    Args:
        x: [..., I].
        weight: [I, O].
        bias: [O], or None.
        act: as of ``activate``.
    Returns:
        [..., O].
    """
    return LINEAR(x, weight, bias, act)


def _linear(x, weight, bias, act):
    if x.ndim < 3:
        return activate(F.linear(x, weight, bias), act)
    # on rows: of more axes, Paddle 2.6 gives second derivatives of another shape
    y = F.linear(x.reshape([-1, x.shape[-1]]), weight, bias)
    return activate(y.reshape([*x.shape[:-1], weight.shape[1]]), act)


def _linear_in_program(x, weight, bias, act):
    """Maps as [B, H * W, I].

    Paddle's predictor joins a product with its GELU, and runs it on oneDNN, with three axes but not with four.
    """
    if x.ndim != 4:
        return activate(F.linear(x, weight, bias), act)
    y = activate(F.linear(x.flatten(1, 2), weight, bias), act)
    return y.reshape([-1, *x.shape[1:3], weight.shape[1]])


def _linear_on_gpu(x, weight, bias, act):
    return activate(F.linear(x, weight) if bias is None else fused_linear()(x, weight, bias), act)


@functools.cache
def fused_linear() -> Callable:
    """The ``linear`` that adds the bias, and sums its gradient, in the kernel of the matrix product.

    From Paddle 3.3 on ``F.linear`` is that. Before, there is an operator for CUDA 11.6 and later, which is tried once.
    """
    if hasattr(paddle._C_ops, "linear_v2"):
        return F.linear
    with paddle.amp.auto_cast(enable=False):
        try:
            fused, plain = (_trial(way) for way in (paddle.incubate.nn.functional.fused_linear, F.linear))
        except Exception:                       # not in this build: whatever it raises, the plain one works
            return F.linear
    close = all(bool(paddle.allclose(one, other, rtol=1e-3, atol=1e-3)) for one, other in zip(fused, plain))
    return paddle.incubate.nn.functional.fused_linear if close else F.linear


def _trial(way: Callable) -> list:
    """The result of a small linear map and its three gradients."""
    inputs = [paddle.linspace(-1, 1, 16).reshape([2, 8]), paddle.linspace(0, 1, 64).reshape([8, 8]),
              paddle.linspace(1, 2, 8)]
    for tensor in inputs:
        tensor.stop_gradient = False
    y = way(*inputs)
    (y * y).sum().backward()
    return [y, *(tensor.grad for tensor in inputs)]


def token_linear(x_bsc, weight, bias, act: Optional[str] = None):
    """``weight @ x + bias`` over the token axis, then an activation.

    Args:
        x_bsc: tokens [B, S, C].
        weight: [O, S].
        bias: [O].
        act: as of ``activate``.
    Returns:
        [B, O, C].
    """
    return TOKEN_LINEAR(x_bsc, weight, bias, act)


def _paddle_token_linear(x_bsc, weight, bias, act):
    y_boc = paddle.matmul(weight, x_bsc)
    return activate(y_boc + bias.unsqueeze(-1).astype(y_boc.dtype), act)  # autocast lowers the product


def _token_product(x_bsc, weight, bias):
    """A bias for every image: so its gradient is summed image by image, in the same order for any part of a batch."""
    return paddle.matmul(weight, x_bsc) + bias.unsqueeze(-1).expand([x_bsc.shape[0], -1, 1])


def _token_linear(x_bsc, weight, bias, act):
    """Paddle's second derivative of a product of [O, S] with [B, S, C] ends the process (3.3.1, 2.6.2)."""
    def gradients(x, weight, bias, dy):
        return (lambda: paddle.matmul(weight, dy, transpose_x=True),
                lambda: paddle.matmul(dy, x, transpose_y=True).sum(0), lambda: dy.sum([0, 2]))
    return activate(differentiable_twice(_token_product, [x_bsc, weight, bias], gradients), act)


class _Product:
    """A linear map over the last axis and its gradients."""

    @staticmethod
    def forward(x, weight):
        return paddle.matmul(x, weight)

    @staticmethod
    def gradients(x, weight, dy):
        # on rows: of more axes, Paddle 2.6 gives the gradient of such a product another shape than the weight's
        rows = dy.reshape([-1, dy.shape[-1]])
        return (lambda: paddle.matmul(rows, weight, transpose_y=True).reshape(x.shape),
                lambda: paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True))

    @staticmethod
    def units(weight) -> int:
        """Number of output units that lie along the rows; 0: they are the columns."""
        return 0

    @staticmethod
    def bias_gradient(dy):
        return dy.reshape([-1, dy.shape[-1]]).sum(0)


class _TokenProduct:
    """A linear map over the token axis and its gradients."""

    @staticmethod
    def forward(x, weight):
        return paddle.matmul(weight, x)

    @staticmethod
    def gradients(x, weight, dy):
        return (lambda: paddle.matmul(weight, dy, transpose_x=True),
                lambda: bfloat16.sum_of_images(paddle.matmul(dy, x, transpose_y=True)))

    @staticmethod
    def units(weight) -> int:
        return weight.shape[0]

    @staticmethod
    def bias_gradient(dy):
        return dy.sum([0, 2])


def _sizes(z, units: int) -> tuple:
    """``(rows, columns, units)`` as the native kernels take them; a bias along the rows repeats every ``units``."""
    return math.prod(z.shape[:-1]), z.shape[-1], units


class _Linear:
    @staticmethod
    def forward(ctx, x, weight, bias, product):
        ctx.x, ctx.weight, ctx.product = x, weight, product
        z = product.forward(x, weight)
        call("bias_add", z, dense(bias), *_sizes(z, product.units(weight)))
        return z

    @staticmethod
    def gradients(ctx, dy):
        def bias_gradient():
            units = ctx.product.units(ctx.weight)
            dbias = empty([units or dy.shape[-1]])
            call("bias_gradient", dense(dy), dbias, *_sizes(dy, units))
            return dbias

        return *ctx.product.gradients(ctx.x, ctx.weight, dy), bias_gradient

    @staticmethod
    def plain_gradients(ctx, dy):
        return *ctx.product.gradients(ctx.x, ctx.weight, dy), lambda: ctx.product.bias_gradient(dy)


class _LinearGelu:
    @staticmethod
    def forward(ctx, x, weight, bias, product, act):
        z = product.forward(x, weight)
        y = empty(z.shape) if any(ctx.needs_grad) else z
        call(f"bias_gelu_{GELUS[act]}", z, dense(bias), y, *_sizes(z, product.units(weight)))
        ctx.x, ctx.weight, ctx.bias, ctx.z, ctx.product, ctx.act = x, weight, bias, z, product, act
        return y

    @staticmethod
    def gradients(ctx, dy):
        units = ctx.product.units(ctx.weight)
        dz, dbias = empty(ctx.z.shape), empty([units or ctx.weight.shape[1]])
        call(f"bias_gelu_{GELUS[ctx.act]}_gradient", ctx.z, dense(dy), dz, dbias, *_sizes(ctx.z, units))
        return *ctx.product.gradients(ctx.x, ctx.weight, dz), dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        bias = ctx.bias.unsqueeze(-1) if ctx.product.units(ctx.weight) else ctx.bias
        dz = dy * gelu_slope(ctx.product.forward(ctx.x, ctx.weight) + bias, ctx.act)
        return *ctx.product.gradients(ctx.x, ctx.weight, dz), lambda: ctx.product.bias_gradient(dz)


def _native_product(product, x, weight, bias, act):
    if act in GELUS:
        return apply(_LinearGelu, [x, weight, bias], product, act)
    return activate(apply(_Linear, [x, weight, bias], product), act)


def _accepts_linear(x, weight, bias, act) -> bool:
    return (bias is not None and x.ndim > 1 and 0 not in x.shape and 0 not in weight.shape
            and weight.shape == [x.shape[-1], *bias.shape])


def _accepts_bf16_linear(x, weight, bias, act) -> bool:
    return (x.ndim > 1 and 0 not in x.shape and 0 not in weight.shape and weight.shape[:1] == [x.shape[-1]]
            and weight.ndim == 2 and (bias is None or bias.shape == weight.shape[1:]))


def _accepts_token_linear(x_bsc, weight, bias, act) -> bool:
    return (x_bsc.ndim == 3 and 0 not in x_bsc.shape and 0 not in weight.shape
            and weight.shape == [*bias.shape, x_bsc.shape[1]])


LINEAR = Operator("linear", 3, _linear, gpu=_linear_on_gpu, program=_linear_in_program,
                  bf16=[Implementation(_accepts_bf16_linear, bfloat16.linear)],
                  native=[Implementation(_accepts_linear, functools.partial(_native_product, _Product))])
TOKEN_LINEAR = Operator("token_linear", 3, _token_linear, gpu=_paddle_token_linear, program=_paddle_token_linear,
                        bf16=[Implementation(_accepts_token_linear, bfloat16.token_linear)],
                        native=[Implementation(_accepts_token_linear,
                                               functools.partial(_native_product, _TokenProduct))])
