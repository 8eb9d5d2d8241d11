"""What the CPU operators share, and GELU and LayerNorm with passes that use every core of a CPU.

Paddle's own CPU kernels for the bias gradient of ``linear`` and for the backward passes of LayerNorm and GELU run on
one thread and cost more than the matrix products beside them. Here, in ``product_ops`` and in ``map_ops`` they are the
compiled passes of ``passl_mixer.native``. Where there is no compiler, sums over rows are matrix products with ones,
which MKL runs on all cores, and GELU is Paddle's. Same formulas, so the results agree with Paddle's to rounding (tests
hold both ways to it).

Used on the CPU in dynamic mode only; on other devices, and in exported programs, callers take Paddle's operators.
Not differentiable twice. Shapes: x [..., C].
"""
import ctypes
import math

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from passl_mixer import native

GELUS = {"gelu": "erf", "gelu_tanh": "tanh"}      # act -> name of the compiled functions


def usable(x) -> bool:
    """Whether the CPU operators apply to ``x``: a float32 tensor on the CPU, in dynamic mode."""
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


def rows_of(z, by_row: int) -> tuple:
    """``(rows, columns, by_row)`` as the compiled passes want them; a bias by row has one value for each of by_row."""
    columns = z.shape[-1]
    return math.prod(z.shape[:-1]), columns, by_row


def row_sums(x_nc):
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
        call("layer_norm", x, weight, bias, y, mean, scale, *rows_of(x, 0)[:2], epsilon)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        if native.load() is None:
            return _layer_norm_gradient(ctx, grad)
        x, weight, mean, scale = ctx.saved_tensor()
        dx, dweight, dbias = paddle.empty_like(x), paddle.empty_like(weight), paddle.empty_like(weight)
        call("layer_norm_gradient", x, weight, mean, scale, dense(grad), dx, dweight, dbias, *rows_of(x, 0)[:2])
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

    return wanted(ctx, input_gradient, lambda: row_sums(weighted), lambda: row_sums(grad))


def layer_norm(x, weight, bias, epsilon: float):
    """LayerNorm over the last axis."""
    return _LayerNorm.apply(x, weight, bias, epsilon)
