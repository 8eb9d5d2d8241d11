"""Feature maps at strides 4, 8, 16 and 32 from any backbone, for detection and segmentation heads.

Strides that the backbone has are taken from its own maps. A missing stride is made from the nearest map as in ViTDet's
simple feature pyramid: larger maps by 2 x 2 transposed convolutions of stride 2, which halve the channels, with
LayerNorm and GELU between them; smaller maps by max-pooling. The 1 x 1 and 3 x 3 convolutions at the end of ViTDet's
pyramid are left to the detector.

Shapes: B images of H x W pixels; map i is [B, feature_channels[i], H / feature_strides[i], W / feature_strides[i]],
sides rounded up where the pyramid pools (ViTDet rounds down; here no border is lost and no map is empty).
Source: Li et al. 2022, arXiv:2203.16527, section 3; official code: detectron2, modeling/backbone/vit.py.
"""
import math
from typing import Sequence

from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import ChannelNorm
from passl_mixer.layers.initialisers import attr, torch_uniform

STRIDES = (4, 8, 16, 32)
EPSILON = 1e-6      # of every LayerNorm here, as in detectron2's vit.py


def _upsample(width: int, doublings: int) -> nn.Sequential:
    """Transposed convolutions that double both sides and halve the channels, ``doublings`` times."""
    layers = []
    for i in range(doublings):
        if i > 0:
            layers += [ChannelNorm(width, epsilon=EPSILON), nn.GELU()]
        init = attr(torch_uniform(width // 2 * 4))
        layers.append(nn.Conv2DTranspose(width, width // 2, 2, stride=2, weight_attr=init, bias_attr=init))
        width //= 2
    return nn.Sequential(*layers)


def _nearest(strides: Sequence[int], target: int) -> tuple:
    """``(index, doublings)``: the nearest map, and how often its sides double to reach ``target`` (< 0: halve)."""
    octaves = [math.log2(stride / target) for stride in strides]
    index = min(range(len(strides)), key=lambda i: abs(octaves[i]))
    return index, round(octaves[index])


class Pyramid(nn.Layer):
    """A backbone with maps at strides 4, 8, 16 and 32.

    Args:
        backbone: any backbone of this package; trained with the pyramid unless its parameters are frozen.
        out_indices: distinct indices of the four strides, 0 to 3.
        norm: whether every map ends in a LayerNorm over its channels.
    Attributes:
        feature_strides: the strides of the maps. If the backbone's stride is no power of two, the nearest that doubling
            and halving reaches: 3.5, 7, 14, 28 for patches of 14.
        feature_channels: the channels of the maps.
    Raises:
        BadInput: wrong ``out_indices``, or a backbone with too few channels to be halved.
    Source: Li et al. 2022, arXiv:2203.16527, section 3.
    """

    def __init__(self, backbone, *, out_indices: Sequence[int] = (0, 1, 2, 3), norm: bool = True):
        super().__init__()
        levels = range(len(STRIDES))
        if not out_indices or len(set(out_indices)) < len(out_indices) or not set(out_indices) <= set(levels):
            raise BadInput(f"out_indices is {list(out_indices)}, expected distinct indices from 0 to 3, which stand "
                           f"for strides {', '.join(map(str, STRIDES))}")
        self.backbone, self.img_size, self.in_chans = backbone, backbone.img_size, backbone.in_chans
        self.sources, strides, channels = [], [], []
        self.scales, self.norms = nn.LayerList(), nn.LayerList()
        for level in out_indices:
            source, doublings = _nearest(backbone.feature_strides, STRIDES[level])
            width, factor = backbone.feature_channels[source], 2 ** abs(doublings)
            stride = backbone.feature_strides[source]
            if doublings > 0 and width < factor:
                raise BadInput(f"stride {STRIDES[level]} halves the {width} channels of the backbone's map {doublings} "
                               "times; leave its index out of out_indices or build a wider backbone")
            if doublings > 0:
                scale, width, stride = _upsample(width, doublings), width // factor, stride / factor
            elif doublings < 0:
                scale, stride = nn.MaxPool2D(factor, stride=factor, ceil_mode=True), stride * factor
            else:
                scale = nn.Identity()
            self.sources.append(source)
            self.scales.append(scale)
            self.norms.append(ChannelNorm(width, epsilon=EPSILON) if norm else nn.Identity())
            strides.append(int(stride) if stride == int(stride) else stride)
            channels.append(width)
        self.feature_strides, self.feature_channels = tuple(strides), tuple(channels)

    def forward(self, images) -> list:
        """Maps [B, C_i, H / stride_i, W / stride_i] of images [B, in_chans, H, W], in the order of ``out_indices``."""
        maps = self.backbone.feature_maps(images)
        return [norm(scale(maps[source]))
                for source, scale, norm in zip(self.sources, self.scales, self.norms)]
