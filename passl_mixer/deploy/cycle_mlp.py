"""CycleMLP with sorted channels, for programs on a CPU: channels with the same shift are adjacent.

The order of the channels inside a stage is free if all its layers agree. Here it is i % 3 == 0, then 1, then 2. A shift
is then a slice of a padded map, instead of whole maps times masks.

Shapes: B images, maps [B, H, W, C]; C known, and H and W, when the program is traced.
"""
import copy

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import ops
from passl_mixer.layers.stages import weigh_branches


def shift_order(width: int) -> np.ndarray:
    """The channels 0 to width - 1, sorted by their shift: 0, + 1, - 1."""
    return np.concatenate([np.arange(k, width, 3) for k in range(3)])


class SortedMixer(nn.Layer):
    """A ``CycleMixer`` on sorted channels.

    Args:
        mixer: the ``CycleMixer``, its weights in the sorted order.
    """

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, x_bhwc):
        """As ``CycleMixer.forward``; [B, H, W, C] to the same."""
        channels = x_bhwc.shape[3]
        still = (channels + 2) // 3
        along_width, along_height = moved(x_bhwc, still)
        unmoved, mixer = x_bhwc[:, :, :, :still], self.mixer
        branches = [ops.linear(paddle.concat([unmoved, *sides], axis=-1), side.weight, side.bias)
                    for side, sides in ((mixer.along_width, along_width), (mixer.along_height, along_height))]
        return mixer.proj(weigh_branches([*branches, mixer.channel(x_bhwc)], mixer.reweight1, mixer.reweight2))


def moved(x_bhwc, still: int) -> list:
    """The shifted channels of a map [B, H, W, C] with sorted channels.

    Args:
        x_bhwc: the map.
        still: number of channels without shift.
    Returns:
        ``[along the width, along the height]``, each ``[+ 1, - 1]``, maps [B, H, W, about C / 3].
    """
    channels = x_bhwc.shape[3]
    plus = still + (channels + 1) // 3
    padded = F.pad(x_bhwc, [1, 1, 1, 1], data_format="NHWC")
    return [[padded[:, 1:-1, 2:, still:plus], padded[:, 1:-1, :-2, plus:]],
            [padded[:, 2:, 1:-1, still:plus], padded[:, :-2, 1:-1, plus:]]]


def _reorder(order, axis: int, *parameters) -> None:
    for parameter in parameters:
        if parameter is not None:
            parameter.set_value(np.take(parameter.numpy(), order, axis))


def _reorder_block(block, order) -> None:
    mixer, mlp = block.mixer, block.mlp
    _reorder(order, 0, block.norm1.weight, block.norm1.bias, block.norm2.weight, block.norm2.bias,
             mixer.along_width.weight, mixer.along_height.weight, mixer.channel.weight, mlp.fc1.weight,
             mixer.proj.bias, mlp.fc2.bias)
    _reorder(order, 1, mixer.proj.weight, mlp.fc2.weight)
    block.mixer = SortedMixer(mixer)


class SortedCycleMLP(nn.Layer):
    """A copy of a CycleMLP with sorted channels and the same outputs; for tracing, not for training.

    Args:
        network: a CycleMLP; not changed.
    """

    def __init__(self, network):
        super().__init__()
        self.in_chans, self.img_size, self.num_features = network.in_chans, network.img_size, network.num_features
        self.network = copy.deepcopy(network)
        orders = [shift_order(width) for width in network.feature_channels]
        convs = [self.network.stem, *self.network.downsamples]
        for i, (order, conv, blocks) in enumerate(zip(orders, convs, self.network.stages)):
            _reorder(order, 0, conv.weight, conv.bias)
            if i > 0:
                _reorder(orders[i - 1], 1, conv.weight)
            for block in blocks:
                _reorder_block(block, order)
        _reorder(orders[-1], 0, self.network.norm.weight, self.network.norm.bias)
        self.back = [np.argsort(order) for order in orders]

    def forward(self, images):
        """As ``CycleMLP.forward``; [B, in_chans, H, W] -> [B, num_features]."""
        return self.network(images).index_select(paddle.to_tensor(self.back[-1]), axis=1)

    def feature_maps(self, images) -> list:
        """As ``CycleMLP.feature_maps``; [B, in_chans, H, W] -> [B, C_i, H_i, W_i] per stage."""
        return [x_bchw.index_select(paddle.to_tensor(back), axis=1)
                for x_bchw, back in zip(self.network.feature_maps(images), self.back)]
