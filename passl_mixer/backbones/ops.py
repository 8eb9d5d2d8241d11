"""Linear maps, GELU and LayerNorm with forward and backward passes that use every core of a CPU.

Paddle's own CPU kernels for the bias gradient of ``linear`` and for the backward passes of LayerNorm and GELU run on
one thread and cost more than the matrix products beside them. Here they are the compiled passes of
``passl_mixer.native``, where the bias and the GELU after a product are one pass too. Where there is no compiler, sums
over rows are matrix products with ones, which MKL runs on all cores, and GELU is Paddle's. Same formulas, so the
results agree with Paddle's to rounding (tests hold both ways to it).

Used on the CPU in dynamic mode only; on other devices, and in exported programs, callers take Paddle's operators.
Not differentiable twice. Shapes: x [..., I], weight [I, O], tokens x [B, S, C]; token weight [O, S].
"""
import ctypes
import math

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from passl_mixer import native

GELUS = {"gelu": "erf", "gelu_tanh": "tanh"}      # act -> name of the compiled functions


def usable(x) -> bool:
    """Whether the operators of this file apply to ``x``: a float32 tensor on the CPU, in dynamic mode."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place() and x.dtype == paddle.float32


def compiled(x) -> bool:
    """Whether ``usable`` and the compiled passes are there."""
    return usable(x) and native.load() is not None


def call(name: str, *arguments) -> None:
    """Run a compiled function: tensors go by address (they must be dense), integers as int64, floats as float."""
    kinds = {int: ctypes.c_int64, float: ctypes.c_float, type(None): ctypes.c_void_p}
    failed = getattr(native.load(), name)(*(
        kinds[type(a)](a) if type(a) in kinds else ctypes.c_void_p(a.data_ptr()) if paddle.is_tensor(a) else a
        for a in arguments))
    if failed:
        raise MemoryError(f"{name}: no memory for its working rows")


def dense(x):
    """``x`` itself, or a copy in row-major order where it is a view with strides."""
    return x if x.is_contiguous() else x.contiguous()


def needs_gradient(*tensors) -> bool:
    return paddle.is_grad_enabled() and any(not t.stop_gradient for t in tensors)


def _rows_of(z, by_row: int) -> tuple:
    """``(rows, columns, by_row)`` as the compiled passes want them; a bias by row has one value for each of by_row."""
    columns = z.shape[-1]
    return math.prod(z.shape[:-1]), columns, by_row


def _row_sums(x_nc):
    """Sum over the rows of [N, C] as a product with ones; [C]."""
    return paddle.matmul(paddle.ones([1, x_nc.shape[0]]), x_nc).squeeze(0)


def _row_means(x_nc):
    """Mean of every row of [N, C] as a product with 1/C; [N, 1]."""
    width = x_nc.shape[-1]
    return paddle.matmul(x_nc, paddle.full([width, 1], 1.0 / width))


def wanted(ctx, *gradients):
    """Evaluate the gradient functions of the inputs that need one; Paddle insists on None for the others."""
    return tuple(gradient() if needed else None for gradient, needed in zip(gradients, ctx.wanted))


def note_wanted(ctx, *inputs) -> None:
    ctx.wanted = [not t.stop_gradient for t in inputs]


def _add_bias(z, bias, by_row: int):
    """``z + bias`` in place, the bias by column (by_row 0) or by row."""
    if native.load() is None:
        return z.add_(bias.unsqueeze(-1) if by_row else bias)
    call("bias_add", z, bias, *_rows_of(z, by_row))
    return z


def _bias_gradient(grad, by_row: int):
    """The gradient of such a bias."""
    if native.load() is not None:
        found = paddle.empty([by_row or grad.shape[-1]])
        call("bias_gradient", grad, found, *_rows_of(grad, by_row))
        return found
    if by_row:
        return _row_sums(paddle.matmul(grad, paddle.ones([grad.shape[2], 1])).squeeze(-1))
    return _row_sums(grad.reshape([-1, grad.shape[-1]]))


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
            return _row_sums(per_image.reshape([grad.shape[0], -1])).reshape(weight.shape)

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
        call(f"bias_gelu_{gelu}", z, bias, y, *_rows_of(z, product.by_row(weight)))
        ctx.save_for_backward(x, weight, z)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, z = ctx.saved_tensor()
        by_row = ctx.product.by_row(weight)
        dz, dbias = paddle.empty_like(z), paddle.empty([weight.shape[0] if by_row else weight.shape[1]])
        call(f"bias_gelu_{ctx.gelu}_gradient", z, dense(grad), dz, dbias, *_rows_of(z, by_row))
        return wanted(ctx, *ctx.product.gradients(x, weight, dz), lambda: dbias)


def _linear_gelu(x, weight, bias, product, act: str):
    if needs_gradient(x, weight, bias):
        return _LinearGelu.apply(x, weight, bias, product, GELUS[act])
    z = product.forward(x, weight)
    call(f"bias_gelu_{GELUS[act]}", z, bias, z, *_rows_of(z, product.by_row(weight)))
    return z


def linear_gelu(x, weight, bias, act: str):
    """GELU of ``linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return _linear_gelu(x, weight, bias, _Product, act)


def token_linear_gelu(x_bsc, weight, bias, act: str):
    """GELU of ``token_linear``, act "gelu" or "gelu_tanh"; wants ``compiled(x)``."""
    return _linear_gelu(x_bsc, weight, bias, _TokenProduct, act)


class _Gelu(PyLayer):
    @staticmethod
    def forward(ctx, x, gelu):
        x = dense(x)
        y = paddle.empty_like(x)
        ctx.gelu = gelu
        ctx.save_for_backward(x)
        call(f"gelu_{gelu}_forward", x, y, math.prod(x.shape))
        return y

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensor()
        dx = paddle.empty_like(x)
        call(f"gelu_{ctx.gelu}_gradient", x, dense(grad), dx, math.prod(x.shape))
        return dx


def gelu(x, act: str):
    """GELU, act "gelu" (erf) or "gelu_tanh"; wants ``compiled(x)``."""
    return _Gelu.apply(x, GELUS[act])


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        note_wanted(ctx, x, weight, bias)
        ctx.epsilon = epsilon
        if native.load() is None:
            ctx.save_for_backward(x, weight)
            return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)
        x = dense(x)
        y, mean, scale = paddle.empty_like(x), paddle.empty(x.shape[:-1]), paddle.empty(x.shape[:-1])
        call("layer_norm", x, weight, bias, y, mean, scale, *_rows_of(x, 0)[:2], epsilon)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        if native.load() is None:
            return _layer_norm_gradient(ctx, grad)
        x, weight, mean, scale = ctx.saved_tensor()
        dx, dweight, dbias = paddle.empty_like(x), paddle.empty_like(weight), paddle.empty_like(weight)
        call("layer_norm_gradient", x, weight, mean, scale, dense(grad), dx, dweight, dbias, *_rows_of(x, 0)[:2])
        return wanted(ctx, lambda: dx, lambda: dweight, lambda: dbias)


def _layer_norm_gradient(ctx, grad):
    x, weight = ctx.saved_tensor()
    shape = x.shape
    x, grad = x.reshape([-1, shape[-1]]), grad.reshape([-1, shape[-1]])
    normed = x - _row_means(x)
    scale = paddle.rsqrt(_row_means(normed * normed) + ctx.epsilon)       # 1 / deviation, [N, 1]
    normed.multiply_(scale)
    weighted = grad * normed

    def input_gradient():
        # scale * (g w - mean(g w) - normed * mean(g w normed)); the means are products with w / C
        mean_w = (weight / shape[-1]).unsqueeze(-1)
        mean_g, mean_gn = paddle.matmul(grad, mean_w), paddle.matmul(weighted, mean_w)
        return (grad * weight).subtract_(normed * mean_gn).subtract_(mean_g).multiply_(scale).reshape(shape)

    return wanted(ctx, input_gradient, lambda: _row_sums(weighted), lambda: _row_sums(grad))


def layer_norm(x, weight, bias, epsilon: float):
    """LayerNorm over the last axis."""
    return _LayerNorm.apply(x, weight, bias, epsilon)
