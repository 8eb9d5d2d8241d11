"""Linear maps over the last or the token axis, with or without a GELU after them, on every core of a CPU.

The bias, and the GELU where one is named, are one compiled pass after the matrix product. Where there is no compiler
the bias gradient is a product with ones. ``ops`` says when these apply. Not differentiable twice.

Shapes: x [..., I], weight [I, O]; tokens x [B, S, C], token weight [O, S].
"""
import paddle
from paddle.autograd import PyLayer

from passl_mixer import native
from passl_mixer.backbones.ops import GELUS, call, dense, needs_gradient, note_wanted, row_sums, rows_of, wanted


def _add_bias(z, bias, by_row: int):
    """``z + bias`` in place, the bias by column (by_row 0) or by row."""
    if native.load() is None:
        return z.add_(bias.unsqueeze(-1) if by_row else bias)
    call("bias_add", z, bias, *rows_of(z, by_row))
    return z


def _bias_gradient(grad, by_row: int):
    """The gradient of such a bias."""
    if native.load() is not None:
        found = paddle.empty([by_row or grad.shape[-1]])
        call("bias_gradient", grad, found, *rows_of(grad, by_row))
        return found
    if by_row:
        return row_sums(paddle.matmul(grad, paddle.ones([grad.shape[2], 1])).squeeze(-1))
    return row_sums(grad.reshape([-1, grad.shape[-1]]))


class _Product:
    """A linear map over the last axis and its gradients."""

    @staticmethod
    def forward(x, weight):
        return paddle.matmul(x, weight)

    @staticmethod
    def gradients(x, weight, grad):
        rows = grad.reshape([-1, grad.shape[-1]])
        return (lambda: paddle.matmul(grad, weight, transpose_y=True),
                lambda: paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True))

    @staticmethod
    def by_row(weight) -> int:
        return 0


class _TokenProduct:
    """A linear map over the token axis and its gradients."""

    @staticmethod
    def forward(x, weight):
        return paddle.matmul(weight, x)

    @staticmethod
    def gradients(x, weight, grad):
        def weight_gradient():
            per_image = paddle.matmul(grad, x, transpose_y=True)                   # [B, O, S]
            return row_sums(per_image.reshape([grad.shape[0], -1])).reshape(weight.shape)

        return lambda: paddle.matmul(weight, grad, transpose_x=True), weight_gradient

    @staticmethod
    def by_row(weight) -> int:
        return weight.shape[0]


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, product):
        note_wanted(ctx, x, weight, bias)
        ctx.save_for_backward(x, weight)
        ctx.product = product
        return _add_bias(product.forward(x, weight), bias, product.by_row(weight))

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensor()
        grad = dense(grad)
        return wanted(ctx, *ctx.product.gradients(x, weight, grad),
                       lambda: _bias_gradient(grad, ctx.product.by_row(weight)))


def linear(x, weight, bias):
    """``x @ weight + bias`` over the last axis; all three may need gradients."""
    return _Linear.apply(x, weight, bias, _Product)


def token_linear(x_bsc, weight, bias):
    """``weight @ x + bias`` over the token axis; weight [O, S], bias [O]; returns [B, O, C]."""
    return _Linear.apply(x_bsc, weight, bias, _TokenProduct)


class _LinearGelu(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, product, gelu):
        note_wanted(ctx, x, weight, bias)
        z = product.forward(x, weight)
        y = paddle.empty_like(z)
        ctx.product, ctx.gelu = product, gelu
        call(f"bias_gelu_{gelu}", z, bias, y, *rows_of(z, product.by_row(weight)))
        ctx.save_for_backward(x, weight, z)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, z = ctx.saved_tensor()
        by_row = ctx.product.by_row(weight)
        dz, dbias = paddle.empty_like(z), paddle.empty([weight.shape[0] if by_row else weight.shape[1]])
        call(f"bias_gelu_{ctx.gelu}_gradient", z, dense(grad), dz, dbias, *rows_of(z, by_row))
        return wanted(ctx, *ctx.product.gradients(x, weight, dz), lambda: dbias)


def _linear_gelu(x, weight, bias, product, act: str):
    if needs_gradient(x, weight, bias):
        return _LinearGelu.apply(x, weight, bias, product, GELUS[act])
    z = product.forward(x, weight)
    call(f"bias_gelu_{GELUS[act]}", z, bias, z, *rows_of(z, product.by_row(weight)))
    return z


def linear_gelu(x, weight, bias, act: str):
    """GELU of ``linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return _linear_gelu(x, weight, bias, _Product, act)


def token_linear_gelu(x_bsc, weight, bias, act: str):
    """GELU of ``token_linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return _linear_gelu(x_bsc, weight, bias, _TokenProduct, act)
