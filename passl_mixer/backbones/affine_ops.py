"""One factor and one summand per channel on a CPU, by compiled passes: Paddle's products with [C] are slow there.

Where a tensor is not ``ops.compiled``, Paddle's operators; the passes are not differentiable twice.

Shapes: x, residual [..., C], scale, shift [C].
"""
import paddle
from paddle.autograd import PyLayer

from passl_mixer.backbones.ops import call, compiled, dense, rows_of


class _Affine(PyLayer):
    @staticmethod
    def forward(ctx, x, scale, shift, residual):
        # of the four inputs' gradients: which there are, and which are wanted
        ctx.given = [t is not None for t in (x, scale, shift, residual)]
        ctx.wanted = [t is not None and not t.stop_gradient for t in (x, scale, shift, residual)]
        x, y = dense(x), paddle.empty(x.shape)
        call("affine", x, scale, shift, None if residual is None else dense(residual), y, *rows_of(x, 0)[:2])
        ctx.save_for_backward(x, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, scale = ctx.saved_tensor()
        # the residual's is a copy: Paddle adds into the gradients it is given
        found = [paddle.empty(like.shape) if want else None for like, want in zip((x, scale, scale, x), ctx.wanted)]
        call("affine_gradient", x, scale, dense(grad), *found, *rows_of(x, 0)[:2])
        return tuple(gradient for gradient, given in zip(found, ctx.given) if given)


def affine(x, scale, shift=None):
    """``x * scale + shift``, or ``x * scale`` where shift is None."""
    if compiled(x):
        return _Affine.apply(x, scale, shift, None)
    return x * scale if shift is None else x * scale + shift


def add_scaled(residual, x, scale):
    """``residual + x * scale``; residual of the shape of x."""
    if compiled(x) and compiled(residual):
        return _Affine.apply(x, scale, None, residual)
    return residual + x * scale
