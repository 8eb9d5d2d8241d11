"""BatchNorm: of rows, of maps with the activations beside it, and over the batch of all processes.

Parameters, their names and running statistics are those of Paddle's layers.

Several processes that train together normalise as one with the whole batch would. Paddle's own ``SyncBatchNorm`` has no
kernel on a CPU (3.3.1 and 2.6.2: "kernel sync_batch_norm is not registered") and adds entries to the state dictionary
where a norm has neither scale nor shift. This one runs everywhere, keeps names and shapes, and its gradient is that of
the whole batch.

Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1 and its gradient.
"""
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed, ops
from passl_mixer.ops.gradients import apply, norm_gradients

EPSILON = 1e-5


class BatchNorm1D(nn.BatchNorm1D):
    """``nn.BatchNorm1D`` whose scale learns without a shift too.

    Paddle (3.3.1, 2.6.2) gives a scale no gradient where there is no shift, so the scale is a product of its own here.
    """

    def forward(self, x):
        """Rows x [B, C], normalised over the batch; running statistics move in training."""
        alone = self.bias is None and self.weight is not None
        y = F.batch_norm(x, self._mean, self._variance, None if alone else self.weight, self.bias,
                         training=self.training, momentum=self._momentum, epsilon=self._epsilon)
        return y * self.weight.astype(y.dtype) if alone else y


class BatchNorm2D(nn.BatchNorm2D):
    """BatchNorm of maps, with the activation before it, the sum and the activation after it where there are any.

    Args:
        width: channels C.
        data_format: layout of the maps unless a call says otherwise, "NCHW" or "NHWC"; ``set_data_format`` changes it.
        pre_act, post_act: activation of what comes in and of what goes out, as of ``ops.activate``, or None. A ReLU
            costs nothing on a CPU, a sum nearly nothing.
    """

    def __init__(self, width: int, *, data_format: str = "NCHW", pre_act: Optional[str] = None,
                 post_act: Optional[str] = None):
        super().__init__(width)
        self.data_format, self.pre_act, self.post_act = data_format, pre_act, post_act

    def forward(self, x, data_format: Optional[str] = None, residual=None):
        """Maps normalised, of their shape and type.

        Args:
            x: [B, C, H, W], or [B, H, W, C] in the layout "NHWC".
            data_format: "NCHW" or "NHWC"; None for that of the layer.
            residual: of the shape of ``x``; added to what is normalised, before the last activation.
        Raises:
            BadInput: a residual of another shape.
        """
        return ops.batch_norm(x, self.weight, self.bias, self._mean, self._variance, residual, training=self.training,
                              momentum=self._momentum, epsilon=self._epsilon,
                              data_format=data_format or self.data_format, pre_act=self.pre_act,
                              post_act=self.post_act)


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


def _moments(x, data_format: str):
    """Mean and biased variance over all processes, [C] each, float32."""
    mean = ops.channel_sums(x, data_format)
    share = mean.size / x.size
    mean = mean * share
    variance = ops.channel_sums(_affine(x, paddle.ones_like(mean), -mean, data_format).square(), data_format) * share
    # Both of every process, so that no sum of squares is needed, which cancels: [world_size, 2, C].
    parts = distributed.all_gather_no_grad(paddle.stack([mean, variance]).unsqueeze(0))
    means, variances = parts[:, 0], parts[:, 1]
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _Normalise:
    """``(x - mean) / std * weight + bias`` with the moments of ``x`` over all processes.

    The gradient of x is weight / std * (dy - mean of dy - normalised x * mean of (dy * normalised x)), its means over
    all processes too.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, mean, std, data_format, epsilon):
        ctx.x, ctx.weight, ctx.mean, ctx.std, ctx.data_format, ctx.epsilon = x, weight, mean, std, data_format, epsilon
        return _affine(x, weight / std, bias - mean * weight / std, data_format)

    @staticmethod
    def gradients(ctx, dy):
        x, mean, std, data_format = ctx.x, ctx.mean, ctx.std, ctx.data_format
        normalised = _affine(x, 1.0 / std, -mean / std, data_format)
        dbias, dweight = (ops.channel_sums(t, data_format) for t in (dy, dy * normalised))

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
        axes, shape = ops.around_channels(x, ctx.data_format)

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
        # of the BatchNorm2D above: its layout, and the activations beside it
        self.data_format, self.pre_act, self.post_act = (
            getattr(norm, name, None) for name in ("data_format", "pre_act", "post_act"))

    def forward(self, x, data_format: Optional[str] = None, residual=None):
        """``x`` normalised, of its shape and type.

        Args:
            x: [B, C], [B, C, H, W], or [B, H, W, C] in the layout "NHWC".
            data_format: "NCHW" or "NHWC"; None for that of the norm whose place this takes.
            residual: of the shape of ``x``; added to what is normalised, before the last activation.
        """
        x = ops.activate(x, self.pre_act)
        y = self._normalised(x, data_format or self.data_format or self._data_format)
        return ops.activate(y if residual is None else y + residual, self.post_act)

    def _normalised(self, x, data_format: str):
        if not self.training and paddle.is_grad_enabled() and self.weight is not None and self.bias is not None:
            # Paddle's own gives the scale a gradient only together with the shift's
            _, shape = ops.around_channels(x, data_format)
            scale = self.weight * (self._variance + self._epsilon).rsqrt()
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
