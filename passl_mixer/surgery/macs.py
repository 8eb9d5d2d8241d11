"""Parameters and multiply-accumulates (MACs) of backbones, for ``passl-mixer list``.

The network is built as a static graph: Paddle infers every shape without allocating a weight, so that the largest
variant takes a second, not gigabytes. MACs are those of convolutions and linear maps (channel, token mixing, CycleFC),
the convention of the published tables, and of attention's two products, q k^T and scores times v (ViT, Swin). Biases,
norms, activations and sums are not counted.
"""
import math
from typing import Sequence, Union

import paddle
from paddle import nn

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.as_mlp import AxialShiftBlock
from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.backbones.mlp_mixer import TokenMlp
from passl_mixer.backbones.wave_mlp import WaveBlock
from passl_mixer.layers.attention import Attend
from passl_mixer.layers.basic import Mlp, TokenLinear
from passl_mixer.layers.checks import image_pair
from passl_mixer.ops.shapes import blank_images, shapes_only

# Image size of the published variants; also used for a free-form backbone that takes any size.
PUBLISHED_SIZE, SMALL_SIZE = 224, 32
WITH_MLP = (Mlp, TokenMlp, WaveBlock, AxialShiftBlock)       # whose ``fc1`` and ``fc2`` are not called one by one
NUM_CLASSES = 1000


def count_parameters(layer: nn.Layer) -> int:
    """Number of trainable parameters, without BatchNorm's running statistics, which Paddle lists too."""
    return sum(math.prod(p.shape) for p in layer.parameters() if not p.stop_gradient)


def _layer_macs(layer: nn.Layer, output_shape: Sequence[int]) -> int:
    """MACs of one layer for one image: number of outputs times the terms of each sum."""
    outputs = math.prod(output_shape[1:])
    if isinstance(layer, nn.Conv2D):
        return outputs * math.prod(layer.weight.shape[1:])
    if isinstance(layer, TokenLinear):
        return outputs * layer.weight.shape[1]
    if isinstance(layer, WITH_MLP):  # one operator for its two linear maps
        return outputs // layer.fc2.bias.shape[0] * sum(math.prod(fc.weight.shape) for fc in (layer.fc1, layer.fc2))
    if isinstance(layer, Attend):  # [..., heads, tokens, channels of a head]: every token meets every other twice
        return outputs * 2 * output_shape[-2]
    return outputs * layer.weight.shape[0]


def count_macs(backbone: nn.Layer, img_size: Union[int, Sequence[int], None] = None) -> int:
    """MACs of the forward pass of one image, without a head.

    Args:
        backbone: a backbone; its mode and weights are not changed.
        img_size: pixels, an integer or a pair; None: the size that the backbone was built for.
    Returns:
        The count of convolutions, linear maps, token mixing, CycleFC and attention's two products.
    Raises:
        BadInput: the backbone does not take this size.
    """
    height, width = image_pair(img_size or backbone.img_size or PUBLISHED_SIZE)
    counted = []

    def record(layer, inputs, output):
        counted.append(_layer_macs(layer, output.shape))

    handles = [layer.register_forward_post_hook(record) for layer in backbone.sublayers()
               if isinstance(layer, (nn.Conv2D, nn.Linear, TokenLinear, CycleFC, Attend, *WITH_MLP))]
    modes = [(layer, layer.training) for layer in backbone.sublayers(include_self=True)]
    backbone.eval()
    try:
        with paddle.no_grad():
            backbone(blank_images(getattr(backbone, "in_chans", 3), height, width))
    finally:
        for handle in handles:
            handle.remove()
        for layer, training in modes:
            layer.training = training
    return sum(counted)


def summary(name: str) -> dict:
    """Sizes of a registered backbone, without allocating its weights.

    Args:
        name: a registered name.
    Returns:
        A dictionary. ``name``; ``parameters``, trainable, with a 1000-class linear head as in the published tables;
        ``img_size``, (height, width) of the count; ``macs`` of one image, with the head; ``any_size``, whether the
        backbone takes any image size; ``feature_strides`` of its feature maps.
    Raises:
        BadInput: unknown name.
    """
    with shapes_only():
        backbone = build_backbone(name)
        default = SMALL_SIZE if name.endswith("_nano") else PUBLISHED_SIZE
        img_size = backbone.img_size or (default, default)
        head_weights = backbone.num_features * NUM_CLASSES
        return {"name": name, "parameters": count_parameters(backbone) + head_weights + NUM_CLASSES,
                "img_size": img_size, "macs": count_macs(backbone, img_size) + head_weights,
                "any_size": backbone.img_size is None, "feature_strides": tuple(backbone.feature_strides)}
