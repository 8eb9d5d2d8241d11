"""Linear maps over the last or the token axis, with or without a GELU after them, on every core of a CPU.

The bias, and the GELU where one is named, are one compiled pass after the matrix product. Where there is no compiler
the bias gradient is a product with ones. ``ops`` says when these apply.

Shapes: x [..., I], weight [I, O]; tokens x [B, S, C], token weight [O, S].
"""
import paddle

from passl_mixer.ops import native
from passl_mixer.ops.cpu import GELUS, gelu_slope, row_sums, rows_of
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


def _add_bias(z, bias, by_row: int):
    """``z + bias`` in place, the bias by column (by_row 0) or by row."""
    if native.load() is None:
        return z.add_(bias.unsqueeze(-1) if by_row else bias)
    call("bias_add", z, bias, *rows_of(z, by_row))
    return z


def _bias_gradient(grad, by_row: int):
    """The gradient of such a bias."""
    if native.load() is None:
        return _plain_bias_gradient(grad, by_row)
    found = paddle.empty([by_row or grad.shape[-1]])
    call("bias_gradient", dense(grad), found, *rows_of(grad, by_row))
    return found


def _plain_bias_gradient(grad, by_row: int):
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
        # on rows: of more axes, Paddle 2.6 gives the gradient of such a product another shape than the weight's
        rows = grad.reshape([-1, grad.shape[-1]])
        return (lambda: paddle.matmul(rows, weight, transpose_y=True).reshape(x.shape),
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


class _Linear:
    @staticmethod
    def forward(ctx, x, weight, bias, product):
        ctx.x, ctx.weight, ctx.product = x, weight, product
        return _add_bias(product.forward(x, weight), bias, product.by_row(weight))

    @staticmethod
    def gradients(ctx, dy):
        return (*ctx.product.gradients(ctx.x, ctx.weight, dy),
                lambda: _bias_gradient(dy, ctx.product.by_row(ctx.weight)))

    @staticmethod
    def plain_gradients(ctx, dy):
        return (*ctx.product.gradients(ctx.x, ctx.weight, dy),
                lambda: _plain_bias_gradient(dy, ctx.product.by_row(ctx.weight)))


def linear(x, weight, bias):
    """``x @ weight + bias`` over the last axis; all three may need gradients."""
    return apply(_Linear, [x, weight, bias], _Product)


def token_linear(x_bsc, weight, bias):
    """``weight @ x + bias`` over the token axis; weight [O, S], bias [O]; returns [B, O, C]."""
    return apply(_Linear, [x_bsc, weight, bias], _TokenProduct)


class _LinearGelu:
    @staticmethod
    def forward(ctx, x, weight, bias, product, gelu):
        z = product.forward(x, weight)
        y = paddle.empty(z.shape) if any(ctx.wanted) else z
        call(f"bias_gelu_{gelu}", z, bias, y, *rows_of(z, product.by_row(weight)))
        ctx.x, ctx.weight, ctx.bias, ctx.z, ctx.product, ctx.gelu = x, weight, bias, z, product, gelu
        return y

    @staticmethod
    def gradients(ctx, dy):
        by_row = ctx.product.by_row(ctx.weight)
        dz, dbias = paddle.empty(ctx.z.shape), paddle.empty([by_row or ctx.weight.shape[1]])
        call(f"bias_gelu_{ctx.gelu}_gradient", ctx.z, dense(dy), dz, dbias, *rows_of(ctx.z, by_row))
        return *ctx.product.gradients(ctx.x, ctx.weight, dz), dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        by_row = ctx.product.by_row(ctx.weight)
        z = ctx.product.forward(ctx.x, ctx.weight) + (ctx.bias.unsqueeze(-1) if by_row else ctx.bias)
        dz = dy * gelu_slope(z, ctx.gelu)
        return *ctx.product.gradients(ctx.x, ctx.weight, dz), lambda: _plain_bias_gradient(dz, by_row)


def linear_gelu(x, weight, bias, act: str):
    """GELU of ``linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return apply(_LinearGelu, [x, weight, bias], _Product, GELUS[act])


def token_linear_gelu(x_bsc, weight, bias, act: str):
    """GELU of ``token_linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return apply(_LinearGelu, [x_bsc, weight, bias], _TokenProduct, GELUS[act])
