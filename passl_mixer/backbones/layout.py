"""Networks of convolutions whose maps lie as [B, H, W, C]: what ``train.channels_last`` turns on. Not run on a GPU yet.

In bfloat16 and float16 a GPU's tensor cores work on that layout, and cuDNN transposes any other. ResNet, ConvMixer and
ConvMLP, once turned, transpose the images where they come in and their maps where they leave; weights, names and
results stay what they are.
"""
from paddle import nn

from passl_mixer.backbones.convolution import Conv2D
from passl_mixer.backbones.layers import permute
from passl_mixer.backbones.map_norms import MapNorm


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
                setattr(parent, name, _map_norm(layer))
            elif isinstance(layer, nn.layer.norm._BatchNormBase):       # SyncBatchNorm, which transposes nothing
                layer._data_format = "NHWC"


def _map_norm(norm) -> MapNorm:
    """A norm of [B, H, W, C] with the parameters, running statistics and mode of one of [B, C, H, W]."""
    found = MapNorm(norm._num_features, momentum=norm._momentum, epsilon=norm._epsilon)
    found.weight, found.bias, found._mean, found._variance = norm.weight, norm.bias, norm._mean, norm._variance
    found.training = norm.training
    return found


def images_in(images_bchw, channels_last: bool):
    """Images [B, C, H, W] as a network takes them that is turned, or is not."""
    return permute(images_bchw, [0, 2, 3, 1]) if channels_last else images_bchw


def map_out(x, channels_last: bool):
    """A map of a network that is turned, or is not, as [B, C, H, W]."""
    return permute(x, [0, 3, 1, 2]) if channels_last else x


def mean_of(x, channels_last: bool):
    """Mean over the positions, [B, C], of a map of a network that is turned, or is not."""
    return x.mean(axis=[1, 2] if channels_last else [2, 3])
