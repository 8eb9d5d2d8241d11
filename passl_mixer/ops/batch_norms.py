"""BatchNorm with the activations and the sum beside it, and the sums that one over several processes needs.

Paddle's kernel runs on one thread of a CPU. The native kernel uses every core, and does a ReLU before the norm, a sum
and a ReLU after it in the same pass.
"""
import math
from typing import Optional

import paddle
import paddle.nn.functional as F

from passl_mixer.errors import BadInput
from passl_mixer.ops.activations import activate
from passl_mixer.ops.axes import flatten, permute
from passl_mixer.ops.elementwise import affine
from passl_mixer.ops.gradients import apply, norm_gradients
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.table import Implementation, Operator


def batch_norm(x, weight, bias, mean, variance, residual=None, *, training: bool, momentum: float, epsilon: float,
               data_format: str = "NCHW", pre_act: Optional[str] = None, post_act: Optional[str] = None):
    """``post_act(norm(pre_act(x)) + residual)``, normalised over all but the channels; training moves the statistics.

    Args:
        x: [B, C, ...], or [..., C] with the channels last.
        weight: scale [C].
        bias: shift [C].
        mean: running mean [C]; changed in place in training, and what normalises in evaluation.
        variance: running variance [C], biased; likewise.
        residual: of the shape of ``x``, or None.
        training: whether the statistics are those of the batch.
        momentum: share of the old running statistics that stays, in [0, 1].
        epsilon: added to the variance; above 0.
        data_format: "NCHW", or "NHWC" where the channels are last.
        pre_act, post_act: activations, as of ``activate``.
    Returns:
        The shape of ``x``.
    Raises:
        BadInput: a residual of another shape.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    _check_residual(x, residual)
    return BATCH_NORM(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format, pre_act,
                      post_act)


@paddle.jit.not_to_static                   # in a program unknown sizes would be compared as tensors
def _check_residual(x, residual) -> None:
    if residual is not None and list(residual.shape) != list(x.shape):
        raise BadInput(f"a map {list(residual.shape)} is to be added to a normalised map {list(x.shape)}; expected one "
                       "shape")


def _paddle_batch_norm(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format, pre_act,
                       post_act):
    """Paddle's norm; maps with the channels last as rows.

    oneDNN computes Paddle's norm of [B, H, W, C] wrongly, and a GPU transposes the map there and back to train it
    (batch_norm_kernel.cu, float16 with a flag excepted; read, not measured).
    """
    shape, x = x.shape, activate(x, pre_act)
    by_rows = data_format == "NHWC" and len(shape) > 2
    rows = flatten(x, 0, len(shape) - 2) if by_rows else x
    y = F.batch_norm(rows, mean, variance, weight, bias, training=training, momentum=momentum, epsilon=epsilon)
    y = y.reshape([-1, *shape[1:]]) if by_rows else y
    return activate(y if residual is None else y + residual, post_act)


def _needs_gradient(*tensors) -> bool:
    return paddle.is_grad_enabled() and any(t is not None and not t.stop_gradient for t in tensors)


def _batch_norm(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format, pre_act, post_act):
    """In evaluation by two operators where gradients are needed.

    Paddle's norm (3.3.1, 2.6.2) gives the scale a gradient only together with the shift's, and has no second one.
    """
    if training or not _needs_gradient(x, weight, bias, residual):
        return _paddle_batch_norm(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format,
                                  pre_act, post_act)
    shape = [-1 if axis == (1 if data_format == "NCHW" else x.ndim - 1) else 1 for axis in range(x.ndim)]
    scale, shift = _scale_and_shift(weight, bias, mean, variance, epsilon)
    y = activate(x, pre_act) * scale.reshape(shape) + shift.reshape(shape)
    return activate(y if residual is None else y + residual, post_act)


def _scale_and_shift(weight, bias, mean, variance, epsilon: float) -> tuple:
    """Factor and summand of a norm with fixed statistics, [C] each."""
    scale = weight * paddle.rsqrt(variance + epsilon)
    return scale, bias - mean * scale


def _places(x, data_format: str) -> tuple:
    """``(outer, channels, inner)`` as the native kernels take them."""
    if data_format == "NHWC":
        return math.prod(x.shape[:-1]), x.shape[-1], 1
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _normalised(x, mean, scale, bias, residual, sizes):
    y = empty(x.shape)
    call("batch_normalise", x, mean, scale, bias, residual, y, *sizes)
    return y


class _BatchNorm:
    """``sizes`` are those of ``_places`` and the ReLUs: bit 1 for one before the norm, bit 2 for one after it."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, mean, variance, momentum, epsilon, sizes):
        ctx.x, ctx.weight, ctx.bias, ctx.residual, ctx.sizes, ctx.epsilon = x, weight, bias, residual, sizes, epsilon
        residual = None if residual is None else dense(residual)
        ctx.mean, ctx.rstd, ctx.scale = (empty(weight.shape) for _ in range(3))
        call("batch_moments", dense(x), dense(weight), ctx.mean, ctx.rstd, ctx.scale, mean, variance, momentum,
             epsilon, *sizes)
        return _normalised(dense(x), ctx.mean, ctx.scale, dense(bias), residual, sizes)

    @staticmethod
    def gradients(ctx, dy):
        x, residual = dense(ctx.x), None if ctx.residual is None else dense(ctx.residual)
        dx, dresidual = (empty(x.shape) if needed else None
                         for needed in (ctx.needs_grad[0], ctx.needs_grad[3]))
        dweight, dbias = empty(ctx.weight.shape), empty(ctx.weight.shape)
        call("batch_norm_gradient", x, ctx.mean, ctx.rstd, ctx.scale, dense(ctx.bias), residual, dense(dy), dx,
             dresidual, dweight, dbias, *ctx.sizes)
        return dx, dweight, dbias, dresidual

    @staticmethod
    def plain_gradients(ctx, dy):
        """Images first, then channels, then positions; the ReLUs are factors of 0 and 1."""
        outer, channels, inner = ctx.sizes[:3]
        x, dy, residual = (None if t is None else t.reshape([outer, channels, inner])
                           for t in (ctx.x, dy, ctx.residual))
        relu_before, relu_after = ctx.sizes[3] & 1, ctx.sizes[3] & 2
        weight = ctx.weight.unsqueeze(-1)
        passed = (x.detach() > 0).astype(x.dtype) if relu_before else 1.0
        if relu_after:
            with paddle.no_grad():
                z = _normalised(dense(ctx.x), ctx.mean, ctx.scale, dense(ctx.bias), None,
                                (*ctx.sizes[:3], int(relu_before)))
                z = z.reshape(dy.shape) if residual is None else z.reshape(dy.shape) + residual
                kept = (z > 0).astype(dy.dtype)
            dy = dy * kept
        shape = ctx.x.shape
        dx, dweight, dbias = norm_gradients(x * passed, weight, dy, [0, 2], [0, 2], ctx.epsilon)
        return (lambda: (dx() * passed).reshape(shape), dweight, dbias, lambda: dy.reshape(shape).clone())


def _native_batch_norm(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format, pre_act,
                       post_act):
    relus = pre_act == "relu", post_act == "relu"
    x = x if relus[0] else activate(x, pre_act)
    sizes = (*_places(x, data_format), relus[0] + 2 * relus[1])
    if training:
        y = apply(_BatchNorm, [x, weight, bias, residual], mean, variance, float(momentum), float(epsilon), sizes)
    else:
        with paddle.no_grad():
            scale = weight * paddle.rsqrt(variance + epsilon)
            y = _normalised(dense(x), dense(mean), scale, dense(bias), None if residual is None else dense(residual),
                            sizes)
    return y if relus[1] else activate(y, post_act)


def _native_fixed(x, weight, bias, mean, variance, residual, training, momentum, epsilon, data_format, pre_act,
                  post_act):
    """In evaluation, where gradients are needed: see ``_batch_norm``."""
    x = activate(x, pre_act)
    scale, shift = _scale_and_shift(weight, bias, mean, variance, epsilon)
    if data_format == "NHWC" or x.ndim == 2:
        y = affine(x, scale, shift)
    else:
        last = [*range(2, x.ndim), 1]
        y = permute(affine(permute(x, [0, *last]), scale, shift), [0, x.ndim - 1, *range(1, x.ndim - 1)])
    return activate(y if residual is None else y + residual, post_act)


def _accepts_batch_norm(x, weight, bias, mean, variance, residual, *options) -> bool:
    if x.ndim < 2 or 0 in x.shape or (residual is not None and residual.shape != x.shape):
        return False
    channels = [x.shape[1] if options[3] == "NCHW" else x.shape[-1]]
    return all(t is not None and t.shape == channels for t in (weight, bias, mean, variance))


def _accepts_batch_norm_kernel(x, weight, bias, mean, variance, residual, *options) -> bool:
    # Of one number a channel Paddle trains no norm, but returns it; the running statistics are changed where they are.
    return (_accepts_batch_norm(x, weight, bias, mean, variance, residual, *options)
            and (math.prod(x.shape) > weight.shape[0] if options[0] else not _needs_gradient(x, weight, bias, residual))
            and mean.is_contiguous() and variance.is_contiguous())


BATCH_NORM = Operator("batch_norm", 6, _batch_norm, gpu=_paddle_batch_norm, program=_paddle_batch_norm,
                      native=[Implementation(_accepts_batch_norm_kernel, _native_batch_norm),
                              Implementation(lambda *t: not t[6] and _accepts_batch_norm(*t), _native_fixed)])


def channel_sums(x, data_format: str):
    """Sum over all but the channels, in float32 and without gradient.

    Args:
        x: [B, C, ...], or [..., C] with the channels last.
        data_format: "NC...", or "N...C" where the channels are last.
    Returns:
        [C].
    """
    return CHANNEL_SUMS(x, data_format)


def around_channels(x, data_format: str) -> tuple:
    """``(axes, shape)``: all axes but the channels', and the shape with which [C] is broadcast to that of ``x``."""
    channel_axis = 1 if data_format[1] == "C" else x.ndim - 1
    return ([axis for axis in range(x.ndim) if axis != channel_axis],
            [-1 if axis == channel_axis else 1 for axis in range(x.ndim)])


def _channel_sums(x, data_format: str):
    return paddle.sum(x, around_channels(x, data_format)[0], dtype="float32")


def _channel_sums_by_products(x, data_format: str):
    """Products with ones, which MKL computes on all cores; Paddle's sums run on one."""
    channels = x.shape[1] if data_format[1] == "C" else x.shape[-1]
    if data_format[1] == "C" and x.ndim > 2:
        x = x.reshape([x.shape[0] * channels, -1])
        x = paddle.matmul(x, paddle.ones([x.shape[1], 1]))
    x = x.reshape([-1, channels])
    return paddle.matmul(paddle.ones([1, x.shape[0]]), x).squeeze(0)


CHANNEL_SUMS = Operator("channel_sums", 1, _channel_sums, native=[Implementation(
    lambda x, data_format: x.ndim > 1 and 0 not in x.shape, _channel_sums_by_products)])
