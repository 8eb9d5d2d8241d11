"""Networks of convolutions whose maps lie as [B, H, W, C]: what ``train.channels_last`` turns on. Not run on a GPU yet.

In bfloat16 and float16 a GPU's tensor cores work on that layout, and cuDNN transposes any other. ResNet, ConvMixer and
ConvMLP, once turned, transpose the images where they come in and their maps where they leave; weights, names and
results stay what they are.
"""
import paddle

from passl_mixer.layers.basic import permute
from passl_mixer.ops import cpu as ops
from passl_mixer.ops import program_ops
from passl_mixer.ops.twice import flatten


def turn_channels_last(model) -> None:
    """Let every network in a model that has ``channels_last`` compute on [B, H, W, C] from now on.

    Args:
        model: a backbone, or a method with all its backbones: a momentum encoder is turned too. Parameters, their
            names and modes stay the same.
    """
    for network in model.sublayers(include_self=True):
        if hasattr(network, "channels_last"):
            network.channels_last = True
            for layer in network.sublayers():
                if hasattr(layer, "on_bhwc"):       # Conv2D, MaxPool2D, BatchNorm2D and what synchronises it
                    layer.on_bhwc = True


def images_in(images_bchw, channels_last: bool):
    """Images [B, C, H, W] as a network takes them that is turned, or is not."""
    return permute(images_bchw, [0, 2, 3, 1]) if channels_last else images_bchw


def map_out(x, channels_last: bool):
    """A map of a network that is turned, or is not, as [B, C, H, W]."""
    return permute(x, [0, 3, 1, 2]) if channels_last else x


def mean_of(x, channels_last: bool):
    """Mean over the positions, [B, C], of a map of a network that is turned, or is not.

    On a CPU a product with equal shares: Paddle spreads the gradient of a mean over two axes element by element.
    """
    if not ops.usable(x):
        return x.mean(axis=[1, 2] if channels_last else [2, 3])
    if channels_last:
        return program_ops.map_mean(x)
    places = x.shape[2] * x.shape[3]
    return paddle.matmul(flatten(x, 2, 3), paddle.full([places, 1], 1.0 / places)).squeeze(2)
