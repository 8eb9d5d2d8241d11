"""Networks of convolutions whose maps lie as [B, H, W, C]: what ``train.channels_last`` turns on. Not run on a GPU yet.

In bfloat16 and float16 a GPU's tensor cores work on that layout, and cuDNN transposes any other. ResNet, ConvMixer and
ConvMLP, once turned, transpose the images where they come in and their maps where they leave; weights, names and
results stay what they are. Turned BatchNorms see a map as rows [B * H * W, C]: one of [B, H, W, C] in training would be
transposed there and back by Paddle (its batch_norm_kernel.cu, float16 with a flag excepted; read, not measured).
"""
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.backbones.layers import Conv2D


def turn_channels_last(model) -> None:
    """Let every network in a model that has ``channels_last`` compute on [B, H, W, C] from now on.

    Args:
        model: a backbone, or a method with all its backbones: a momentum encoder is turned too. Parameters, their
            names and modes stay the same.
    """
    for network in model.sublayers(include_self=True):
        if hasattr(network, "channels_last"):
            network.channels_last = True
            _turn_layers(network)


def _turn_layers(network) -> None:
    for parent in network.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv2D):
                layer.on_bhwc = True
            elif isinstance(layer, nn.MaxPool2D):
                layer.data_format = "NHWC"
            elif type(layer) is nn.BatchNorm2D:
                setattr(parent, name, RowNorm(layer))
            elif isinstance(layer, nn.layer.norm._BatchNormBase):       # SyncBatchNorm, which transposes nothing
                layer._data_format = "NHWC"


class RowNorm(nn.BatchNorm2D):
    """BatchNorm of maps [B, H, W, C], computed on their rows.

    Args:
        norm: the ``nn.BatchNorm2D`` whose place it takes: parameters, running statistics and mode are shared.
    """

    def __init__(self, norm):
        super().__init__(norm._num_features, momentum=norm._momentum, epsilon=norm._epsilon, data_format="NHWC")
        self.weight, self.bias, self._mean, self._variance = norm.weight, norm.bias, norm._mean, norm._variance
        self.training = norm.training

    def forward(self, x_bhwc):
        """``x_bhwc`` normalised, of its shape and type."""
        y = F.batch_norm(x_bhwc.flatten(0, 2), self._mean, self._variance, self.weight, self.bias,
                         training=self.training, momentum=self._momentum, epsilon=self._epsilon)
        return y.reshape([-1, *x_bhwc.shape[1:]])


def images_in(images_bchw, channels_last: bool):
    """Images [B, C, H, W] as a network takes them that is turned, or is not."""
    return images_bchw.transpose([0, 2, 3, 1]) if channels_last else images_bchw


def map_out(x, channels_last: bool):
    """A map of a network that is turned, or is not, as [B, C, H, W]."""
    return x.transpose([0, 3, 1, 2]) if channels_last else x


def mean_of(x, channels_last: bool):
    """Mean over the positions, [B, C], of a map of a network that is turned, or is not."""
    return x.mean(axis=[1, 2] if channels_last else [2, 3])
