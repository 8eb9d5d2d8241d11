"""Linear, token-mixing linear and LayerNorm with backward passes that use every core of a CPU.

Paddle's own CPU kernels for the bias gradient of ``linear`` and the backward of LayerNorm run on one thread and cost
more than the matrix products beside them. Here sums over rows are matrix products with ones, which MKL runs on all
cores. Same formulas, so the results agree with Paddle's to rounding (tests hold them to it). GELU was tried too: its
derivative written in Paddle operators is no faster than Paddle's kernel.

Used on the CPU in dynamic mode only; on other devices, and in exported programs, callers take Paddle's operators.
Not differentiable twice. Shapes: x [..., I], weight [I, O], tokens x [B, S, C].
"""
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer


def usable(x) -> bool:
    """Whether the operators of this file apply to ``x``: a float32 tensor on the CPU, in dynamic mode."""
    return paddle.in_dynamic_mode() and x.place.is_cpu_place() and x.dtype == paddle.float32


def _row_sums(x_nc):
    """Sum over the rows of [N, C] as a product with ones; [C]."""
    return paddle.matmul(paddle.ones([1, x_nc.shape[0]]), x_nc).squeeze(0)


def _row_means(x_nc):
    """Mean of every row of [N, C] as a product with 1/C; [N, 1]."""
    width = x_nc.shape[-1]
    return paddle.matmul(x_nc, paddle.full([width, 1], 1.0 / width))


def _wanted(ctx, *gradients):
    """Evaluate the gradient functions of the inputs that need one; Paddle insists on None for the others."""
    return tuple(gradient() if wanted else None for gradient, wanted in zip(gradients, ctx.wanted))


def _note_wanted(ctx, *inputs) -> None:
    ctx.wanted = [not t.stop_gradient for t in inputs]


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias):
        _note_wanted(ctx, x, weight, bias)
        ctx.save_for_backward(x, weight)
        return paddle.matmul(x, weight).add_(bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensor()
        rows = grad.reshape([-1, grad.shape[-1]])
        return _wanted(ctx, lambda: paddle.matmul(grad, weight, transpose_y=True),
                       lambda: paddle.matmul(x.reshape([-1, x.shape[-1]]), rows, transpose_x=True),
                       lambda: _row_sums(rows))


def linear(x, weight, bias):
    """``x @ weight + bias`` over the last axis; all three may need gradients."""
    return _Linear.apply(x, weight, bias)


class _TokenLinear(PyLayer):
    @staticmethod
    def forward(ctx, x_bsc, weight, bias):
        _note_wanted(ctx, x_bsc, weight, bias)
        ctx.save_for_backward(x_bsc, weight)
        return paddle.matmul(weight, x_bsc).add_(bias.unsqueeze(-1))

    @staticmethod
    def backward(ctx, grad_boc):
        x_bsc, weight = ctx.saved_tensor()
        images, width = grad_boc.shape[0], grad_boc.shape[2]

        def weight_gradient():
            per_image = paddle.matmul(grad_boc, x_bsc, transpose_y=True)          # [B, O, S]
            return _row_sums(per_image.reshape([images, -1])).reshape(weight.shape)

        return _wanted(ctx, lambda: paddle.matmul(weight, grad_boc, transpose_x=True), weight_gradient,
                       lambda: _row_sums(paddle.matmul(grad_boc, paddle.ones([width, 1])).squeeze(-1)))


def token_linear(x_bsc, weight, bias):
    """``weight @ x + bias`` over the token axis; weight [O, S], bias [O]; returns [B, O, C]."""
    return _TokenLinear.apply(x_bsc, weight, bias)


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        _note_wanted(ctx, x, weight, bias)
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx, grad):
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

        return _wanted(ctx, input_gradient, lambda: _row_sums(weighted), lambda: _row_sums(grad))


def layer_norm(x, weight, bias, epsilon: float):
    """LayerNorm over the last axis."""
    return _LayerNorm.apply(x, weight, bias, epsilon)
