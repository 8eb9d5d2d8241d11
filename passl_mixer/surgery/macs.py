"""How large a backbone is and how much it computes: the numbers that ``passl-mixer list`` prints.

A network is laid out as a static graph, where Paddle infers every shape without allocating a weight, so that
the largest variant costs a second, not gigabytes. Multiply-accumulates are those of convolutions and linear
maps (channel, token mixing, CycleFC), the convention of the published tables; biases, norms, activations and
sums are not counted. Attention's two matrix products, q k^T and scores times v, are counted (ViT, Swin).
"""
import math
from typing import Sequence, Union

import paddle
from paddle import nn

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.layers.attention import Attend
from passl_mixer.layers.basic import TokenLinear
from passl_mixer.layers.checks import image_pair
from passl_mixer.ops.shapes import blank_images, shapes_only

# Size at which the named variants were published; a free-form size-free backbone is counted at it too.
PUBLISHED_SIZE, SMALL_SIZE = 224, 32
NUM_CLASSES = 1000


def count_parameters(layer: nn.Layer) -> int:
    """Number of trainable parameters; BatchNorm's running statistics, listed by Paddle too, are left out."""
    return sum(math.prod(p.shape) for p in layer.parameters() if not p.stop_gradient)


def _layer_macs(layer: nn.Layer, output_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one layer: outputs of one image times the length of each one's sum."""
    outputs = math.prod(output_shape[1:])
    if isinstance(layer, nn.Conv2D):
        return outputs * math.prod(layer.weight.shape[1:])
    if isinstance(layer, TokenLinear):
        return outputs * layer.weight.shape[1]
    if isinstance(layer, Attend):  # [..., heads, tokens, channels of a head]: every token meets every other twice
        return outputs * 2 * output_shape[-2]
    return outputs * layer.weight.shape[0]


def count_macs(backbone: nn.Layer, img_size: Union[int, Sequence[int], None] = None) -> int:
    """Multiply-accumulates of one image's forward pass, without a head.

    Args:
        backbone: a backbone; its mode and weights are left as they are.
        img_size: pixels, an integer or a pair; by default the size the backbone was built for.
    Returns:
        The count, for convolutions, linear maps, token mixing, CycleFC and attention's two products.
    Raises:
        BadInput: if the backbone does not take this size.
    """
    height, width = image_pair(img_size or backbone.img_size or PUBLISHED_SIZE)
    counted = []

    def record(layer, inputs, output):
        counted.append(_layer_macs(layer, output.shape))

    handles = [layer.register_forward_post_hook(record) for layer in backbone.sublayers()
               if isinstance(layer, (nn.Conv2D, nn.Linear, TokenLinear, CycleFC, Attend))]
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
    """Sizes of a registered backbone, without building its weights.

    Args:
        name: a registered name.
    Returns:
        ``name``; ``parameters``: trainable ones including a 1000-class linear head, as in the published
        tables; ``img_size``: the size counted at, (height, width); ``macs``: of one image, head included;
        ``any_size``: whether the backbone takes any image size; ``feature_strides``: of its feature maps.
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
