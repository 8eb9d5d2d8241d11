"""What the CPU operators share, and GELU and LayerNorm with passes that use every core of a CPU.

Paddle's own CPU kernels for the bias gradient of ``linear`` and for the backward passes of LayerNorm and GELU run on
one thread and cost more than the matrix products beside them. Here, in ``product_ops`` and in ``map_ops`` they are the
compiled passes of ``passl_mixer.ops.native``. Where there is no compiler, sums over rows are matrix products with ones,
which MKL runs on all cores, and GELU is Paddle's. Same formulas, so the results agree with Paddle's to rounding (tests
hold both ways to it).

Used on the CPU in dynamic mode only; on other devices, and in exported programs, callers take Paddle's operators.
Every operator is a class as ``passl_mixer.ops.gradients`` wants it, with its gradients twice: quick, and by Paddle's
differentiable operators for gradients of gradients, which Paddle's own GELU and LayerNorm do not have.
Shapes: x [..., C].
"""
import math

import paddle
import paddle.nn.functional as F

from passl_mixer.ops import native
from passl_mixer.ops.gradients import apply, norm_gradients
from passl_mixer.ops.native import call, dense

GELUS = {"gelu": "erf", "gelu_tanh": "tanh"}      # act -> name of the compiled functions


def usable(x) -> bool:
    """Whether the CPU operators apply to ``x``: a float32 tensor on the CPU, in dynamic mode."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place() and x.dtype == paddle.float32


def compiled(x) -> bool:
    """Whether ``usable`` and the compiled passes are there."""
    return usable(x) and native.load() is not None


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


def gelu_slope(x, gelu: str):
    """The slope of GELU by differentiable operators."""
    near = x.clip(-20.0, 20.0)              # beyond, the second summand is 0 in float32; infinities would be NaN
    if gelu == "erf":
        bell = paddle.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
        return 0.5 + 0.5 * paddle.erf(x / math.sqrt(2)) + near * bell
    twice_u = 2 * math.sqrt(2 / math.pi) * (near + 0.044715 * near ** 3)
    slope_of_u = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
    gate = F.sigmoid(twice_u)
    return gate + 2 * near * gate * F.sigmoid(-twice_u) * slope_of_u


class _Gelu:
    @staticmethod
    def forward(ctx, x, gelu):
        ctx.x, ctx.gelu = x, gelu
        y = paddle.empty(x.shape)
        call(f"gelu_{gelu}_forward", dense(x), y, math.prod(x.shape))
        return y

    @staticmethod
    def gradients(ctx, dy):
        dx = paddle.empty(dy.shape)
        call(f"gelu_{ctx.gelu}_gradient", dense(ctx.x), dense(dy), dx, math.prod(dy.shape))
        return [dx]

    @staticmethod
    def plain_gradients(ctx, dy):
        return [dy * gelu_slope(ctx.x, ctx.gelu)]


def gelu(x, act: str):
    """GELU, act "gelu" (erf) or "gelu_tanh"; wants ``compiled(x)``."""
    return apply(_Gelu, [x], GELUS[act])


class _LayerNorm:
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        ctx.x, ctx.weight, ctx.epsilon = x, weight, epsilon
        if native.load() is None:
            return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)
        y, ctx.mean, ctx.rstd = paddle.empty(x.shape), paddle.empty(x.shape[:-1]), paddle.empty(x.shape[:-1])
        call("layer_norm", dense(x), weight, bias, y, ctx.mean, ctx.rstd, *rows_of(x, 0)[:2], epsilon)
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        if native.load() is None:
            return _layer_norm_gradients(x, weight, ctx.epsilon, dy)
        dx, dweight, dbias = paddle.empty(x.shape), paddle.empty(weight.shape), paddle.empty(weight.shape)
        call("layer_norm_gradient", dense(x), weight, ctx.mean, ctx.rstd, dense(dy), dx, dweight, dbias,
            *rows_of(x, 0)[:2])
        return dx, dweight, dbias

    @staticmethod
    def plain_gradients(ctx, dy):
        rest = list(range(dy.ndim - 1))
        return norm_gradients(ctx.x, ctx.weight, dy, [-1], rest, ctx.epsilon)


def _layer_norm_gradients(x, weight, epsilon: float, dy):
    shape = x.shape
    x, dy = x.reshape([-1, shape[-1]]), dy.reshape([-1, shape[-1]])
    normed = x - _row_means(x)
    rstd = paddle.rsqrt(_row_means(normed * normed) + epsilon)       # 1 / deviation, [N, 1]
    normed.multiply_(rstd)
    weighted = dy * normed

    def input_gradient():
        # rstd * (g w - mean(g w) - normed * mean(g w normed)); the means are products with w / C
        mean_w = (weight / shape[-1]).unsqueeze(-1)
        mean_g, mean_gn = paddle.matmul(dy, mean_w), paddle.matmul(weighted, mean_w)
        return (dy * weight).subtract_(normed * mean_gn).subtract_(mean_g).multiply_(rstd).reshape(shape)

    return input_gradient, lambda: row_sums(weighted), lambda: row_sums(dy)


def layer_norm(x, weight, bias, epsilon: float):
    """LayerNorm over the last axis."""
    return apply(_LayerNorm, [x, weight, bias], epsilon)
