"""One factor and one summand per channel on a CPU, by compiled passes: Paddle's products with [C] are slow there.

Where a tensor is not ``ops.compiled``, Paddle's operators.

Shapes: x, residual [..., C], scale, shift [C].
"""
import paddle

from passl_mixer.ops.cpu import compiled, rows_of
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.native import call, dense


class _Affine:
    @staticmethod
    def forward(ctx, x, scale, shift, residual):
        ctx.x, ctx.scale, y = x, scale, paddle.empty(x.shape)
        call("affine", dense(x), scale, shift, None if residual is None else dense(residual), y, *rows_of(x, 0)[:2])
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, scale = ctx.x, ctx.scale
        # the residual's is a copy: Paddle adds into the gradients it is given
        found = [paddle.empty(like.shape) if want else None for like, want in zip((x, scale, scale, x), ctx.wanted)]
        call("affine_gradient", dense(x), scale, dense(dy), *found, *rows_of(x, 0)[:2])
        return found

    @staticmethod
    def plain_gradients(ctx, dy):
        rows = list(range(dy.ndim - 1))
        return (lambda: dy * ctx.scale, lambda: (dy * ctx.x).sum(rows), lambda: dy.sum(rows), lambda: dy.clone())


def affine(x, scale, shift=None):
    """``x * scale + shift``, or ``x * scale`` where shift is None."""
    if compiled(x):
        return apply(_Affine, [x, scale, shift, None])
    return x * scale if shift is None else x * scale + shift


def add_scaled(residual, x, scale):
    """``residual + x * scale``; residual of the shape of x."""
    if compiled(x) and compiled(residual):
        return apply(_Affine, [x, scale, None, residual])
    return residual + x * scale
