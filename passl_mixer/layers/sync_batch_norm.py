"""BatchNorm over the batch of all processes: several that train together normalise as one with the whole batch would.

Paddle's own ``SyncBatchNorm`` has no kernel on a CPU (3.3.1 and 2.6.2: "kernel sync_batch_norm is not registered") and
adds entries to the state dictionary where a norm has neither scale nor shift. This one runs everywhere, keeps names and
shapes, and its gradient is that of the whole batch. Layouts: C is axis 1 of [B, C] and [B, C, H, W], the last of
[B, H, W, C].

Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1 and its gradient, moments taken over all processes.
"""
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed
from passl_mixer.ops.gradients import apply, norm_gradients

EPSILON = 1e-5


def synchronise(model) -> None:
    """Put a ``SyncBatchNorm`` in the place of every BatchNorm of a model; parameters, names and modes stay the same.

    Args:
        model: any layer; every process must then call its norms in the same order, on inputs of one shape.
    """
    for parent in model.sublayers(include_self=True):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.layer.norm._BatchNormBase) and not isinstance(norm, SyncBatchNorm):
                setattr(parent, name, SyncBatchNorm(norm))


def _affine(x, scale, shift, data_format: str):
    """``scale * x + shift`` per channel by Paddle's BatchNorm kernel: its broadcasts are slow on a CPU."""
    one, none = paddle.ones_like(scale), paddle.zeros_like(scale)
    return F.batch_norm(x, none, one, scale * (1.0 + EPSILON) ** 0.5, shift, epsilon=EPSILON, data_format=data_format)


def _around_channels(x, data_format: str) -> tuple:
    """``(axes, shape)``: all axes but the channels', and the shape with which [C] is broadcast to that of ``x``."""
    channel_axis = 1 if data_format[1] == "C" else x.ndim - 1
    return ([axis for axis in range(x.ndim) if axis != channel_axis],
            [-1 if axis == channel_axis else 1 for axis in range(x.ndim)])


def _sums(x, data_format: str):
    """Sum over all but the channels, [C], float32; by products with ones on a CPU, where Paddle's sums are slow."""
    axes, _ = _around_channels(x, data_format)
    if not x.place.is_cpu_place():
        return paddle.sum(x, axes, dtype="float32")
    channels = x.shape[1] if data_format[1] == "C" else x.shape[-1]
    if data_format[1] == "C" and x.ndim > 2:
        x = x.reshape([x.shape[0] * channels, -1])
        x = paddle.matmul(x, paddle.ones([x.shape[1], 1]))
    x = x.reshape([-1, channels])
    return paddle.matmul(paddle.ones([1, x.shape[0]]), x).squeeze(0)


def _moments(x, data_format: str):
    """Mean and biased variance over all processes, [C] each, float32."""
    mean = _sums(x, data_format)
    share = mean.size / x.size
    mean = mean * share
    variance = _sums(_affine(x, paddle.ones_like(mean), -mean, data_format).square(), data_format) * share
    # Both of every process, so that no sum of squares is needed, which cancels: [world_size, 2, C].
    parts = distributed.all_gather_no_grad(paddle.stack([mean, variance]).unsqueeze(0))
    means, variances = parts[:, 0], parts[:, 1]
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _Normalise:
    """``(x - mean) / std * weight + bias`` with the moments of ``x`` over all processes; dx is the textbook's:

    weight / std * (dy - mean of dy - normalised x * mean of (dy * normalised x)), those means over all processes too.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, std, data_format, epsilon):
        ctx.x, ctx.weight, ctx.mean, ctx.std, ctx.data_format, ctx.epsilon = x, weight, mean, std, data_format, epsilon
        return _affine(x, weight / std, bias - mean * weight / std, data_format)

    @staticmethod
    def gradients(ctx, dy):
        x, mean, std, data_format = ctx.x, ctx.mean, ctx.std, ctx.data_format
        normalised = _affine(x, 1.0 / std, -mean / std, data_format)
        dbias, dweight = (_sums(t, data_format) for t in (dy, dy * normalised))

        def input_gradient():
            sums = distributed.all_gather_no_grad(paddle.stack([dbias, dweight]).unsqueeze(0)).sum(0)
            means = sums * (mean.size / (distributed.world_size() * x.size))
            scale = ctx.weight / std
            return _affine(dy, scale, -scale * means[0], data_format) \
                + _affine(normalised, -scale * means[1], paddle.zeros_like(scale), data_format)

        # copies, since the gradient of x may be taken later: Paddle adds into the gradients it is given
        return input_gradient, dweight.clone(), dbias.clone()

    @staticmethod
    def plain_gradients(ctx, dy):
        x, dy = ctx.x.astype("float32"), dy.astype("float32")
        axes, shape = _around_channels(x, ctx.data_format)

        def mean_of(t):
            return distributed.all_gather(t.mean(axes, keepdim=True).unsqueeze(0)).mean(0)

        dx, dweight, dbias = norm_gradients(x, ctx.weight.reshape(shape), dy, axes, axes, ctx.epsilon, mean_of)
        return lambda: dx().astype(ctx.x.dtype), dweight, dbias


class SyncBatchNorm(nn.layer.norm._BatchNormBase):
    """A BatchNorm whose training statistics are those of all processes' rows together; in evaluation the norm itself.

    Args:
        norm: the BatchNorm whose place it takes: parameters, running statistics and mode are shared.
    """

    def __init__(self, norm):
        nn.Layer.__init__(self)
        self.weight, self.bias, self._mean, self._variance = norm.weight, norm.bias, norm._mean, norm._variance
        self._momentum, self._epsilon, self._data_format = norm._momentum, norm._epsilon, norm._data_format
        self._num_features, self._name, self.training = norm._num_features, norm._name, norm.training
        # of the backbones' own BatchNorm2D: its layout, and the activations beside it
        self.on_bhwc, self.before, self.after, self.activate = (
            getattr(norm, name, None) for name in ("on_bhwc", "before", "after", "activate"))

    def forward(self, x, channels_last: bool = False, plus=None):
        """``x`` normalised, of its shape and type, plus a tensor of that shape; [B, H, W, C] with ``channels_last``."""
        x = x if self.before is None else self.activate(x, self.before)
        y = self._normalised(x, "NHWC" if channels_last or self.on_bhwc else self._data_format)
        y = y if plus is None else y + plus
        return y if self.after is None else self.activate(y, self.after)

    def _normalised(self, x, data_format: str):
        if not self.training and paddle.is_grad_enabled() and self.weight is not None and self.bias is not None:
            # of Paddle's own, the scale's gradient is None unless the shift's is asked for too
            scale, (_, shape) = self.weight * (self._variance + self._epsilon).rsqrt(), _around_channels(x, data_format)
            return (x * scale.reshape(shape) + (self.bias - self._mean * scale).reshape(shape)).astype(x.dtype)
        if not self.training:
            return F.batch_norm(x, self._mean, self._variance, self.weight, self.bias, epsilon=self._epsilon,
                                data_format=data_format)
        with paddle.amp.auto_cast(enable=False):    # the backward pass, which knows no autocast, sees the same types
            with paddle.no_grad():
                mean, variance = _moments(x.astype("float32"), data_format)
                for running, batch in ((self._mean, mean), (self._variance, variance)):
                    running.scale_(self._momentum).add_(batch * (1.0 - self._momentum))
            weight = paddle.ones_like(mean) if self.weight is None else self.weight
            bias = paddle.zeros_like(mean) if self.bias is None else self.bias
            return apply(_Normalise, [x, weight, bias], mean, (variance + self._epsilon).sqrt(), data_format,
                         self._epsilon)
