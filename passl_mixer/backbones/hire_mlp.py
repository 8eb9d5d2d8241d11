"""Hire-MLP: Vision MLP via Hierarchical Rearrangement (Guo et al. 2021, arXiv:2108.13341).

Official code, read for its facts only: https://github.com/ggjy/Hire-Wave-MLP.pytorch, mlp_based/hire_mlp.py; a
second reference is Huawei's MindSpore hire_mlp.py (Apache-2.0), which agrees but shifts the other way. From the
official code: stem 7 x 7, stride 4, padding 2, and down-sampling 3 x 3, stride 2, padding 1, both with bias,
BatchNorm and ReLU; regions of 4, 3, 3, 2 positions; shifts of the blocks of a stage, repeated: 0, 2 | 0, 2 |
0, 1, 2 | 0, 1; a region's MLP of C * size -> C / 2 (no bias, BatchNorm, ReLU) -> C * size; a channel map with
bias; scores of the three branches from C -> C / 4 -> 3 C; channel MLP with GELU; BatchNorm before both halves
of a block and after the last stage; weights truncated normal 0.02, convolutions too, zero biases; drop path
rising linearly over all blocks; widths, depths and ratios of the four variants.

Deviations: within a region the channel is the fastest index (officially the position is: the rows of ``fc1``
and the columns of ``fc2`` in another order); an image side shorter than the circular padding is repeated,
where the official code stops; ``stem_stride`` 2 is ours, for small images.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
import functools
from typing import Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import Linear, linear_rates
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.checks import check_positive, check_same_length
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.initialisers import attr
from passl_mixer.layers.stages import STEMS, ResidualBlock, check_stages, conv_stage_outputs, weigh_branches

Norm = functools.partial(BatchNorm2D, data_format="NHWC")


class RegionMlp(nn.Layer):
    """Mix the positions of each region along one axis, after a circular shift that is undone at the end.

    Args:
        width: channels C in and out.
        size: positions of a region.
        shift: positions the axis is turned by before regions are laid (cross-region rearrangement); 0: none.
        axis: 1 mixes along the height, 2 along the width of [B, H, W, C].
    Source: Guo et al. 2021, arXiv:2108.13341, inner- and cross-region rearrangement.
    """

    def __init__(self, width: int, *, size: int, shift: int, axis: int):
        super().__init__()
        self.size, self.shift, self.axis = size, shift, axis
        self.fc1 = Linear(size * width, width // 2, bias=False)
        self.norm = Norm(width // 2, post_act="relu")
        self.fc2 = Linear(width // 2, size * width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        regions = self.fc2(self.norm(self.fc1(ops.to_regions(x_bhwc, self.size, self.axis, self.shift))))
        return ops.from_regions(regions, self.size, self.axis, x_bhwc.shape[self.axis], self.shift)


class HireMixer(nn.Layer):
    """Height, width and channel branches, weighted per channel by a softmax; [B, H, W, C] to the same.

    Args:
        width: channels C.
        size: positions of a region.
        shift: as in ``RegionMlp``.
    """

    def __init__(self, width: int, *, size: int, shift: int):
        super().__init__()
        self.along_height = RegionMlp(width, size=size, shift=shift, axis=1)
        self.along_width = RegionMlp(width, size=size, shift=shift, axis=2)
        self.channel = Linear(width, width)
        self.reweight1 = Linear(width, width // 4)
        self.reweight2 = Linear(width // 4, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        branches = [self.along_height(x_bhwc), self.along_width(x_bhwc), self.channel(x_bhwc)]
        return self.proj(weigh_branches(branches, self.reweight1, self.reweight2))


def conv_bn_relu(in_chans: int, out_chans: int, kernel: int, *, stride: int, padding: int) -> nn.Layer:
    """Convolution with bias, BatchNorm and ReLU on [B, C, H, W], with the official initialisation.

    Args:
        in_chans, out_chans, kernel, stride, padding: as of ``Conv2D``.
    """
    conv = Conv2D(in_chans, out_chans, kernel, stride=stride, padding=padding,
                     weight_attr=attr(nn.initializer.TruncatedNormal(std=0.02)),
                     bias_attr=attr(nn.initializer.Constant(0.0)))
    return nn.Sequential(conv, BatchNorm2D(out_chans, post_act="relu"))


class HireMLP(nn.Layer):
    """Hire-MLP without a classifier; takes any image size.

    Args:
        in_chans: image channels.
        embed_dims: width of each stage, 4 at least.
        depths: blocks of each stage.
        mlp_ratios: hidden width of the channel MLPs of each stage, as a multiple of its width.
        region_sizes: positions of a region in each stage.
        shifts: for each stage the shifts of its blocks in positions, repeated over the blocks; 0: no shift.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks,
            in [0, 1); the authors train Tiny with 0, Base with 0.2.
        stem_stride: 4 is published (7 x 7 convolution); 2 is a 3 x 3 convolution for small images.
    Raises:
        BadInput: the options do not fit each other.
    Source: Guo et al. 2021, arXiv:2108.13341, and the official code's HireMLPNet.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, embed_dims: Sequence[int] = (64, 128, 320, 512),
                 depths: Sequence[int] = (2, 2, 4, 2), mlp_ratios: Sequence[float] = (4, 4, 4, 4),
                 region_sizes: Sequence[int] = (4, 3, 3, 2),
                 shifts: Sequence[Sequence[int]] = ((0, 2), (0, 2), (0, 1, 2), (0, 1)),
                 drop_path_rate: float = 0.0, stem_stride: int = 4):
        super().__init__()
        check_stages(in_chans=in_chans, stem_stride=stem_stride, embed_dims=embed_dims, depths=depths,
                     mlp_ratios=mlp_ratios)
        check_same_length(embed_dims=embed_dims, region_sizes=region_sizes, shifts=shifts)
        check_positive(region_sizes=region_sizes)
        if any(len(cycle) == 0 or min(cycle) < 0 for cycle in shifts):
            raise BadInput(f"shifts is {[list(cycle) for cycle in shifts]}, expected for each stage a list of "
                           "numbers that are 0 (no shift) or above: [0, 2]")
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.feature_channels = tuple(embed_dims)
        self.feature_strides = tuple(stem_stride * 2 ** i for i in range(len(embed_dims)))
        kernel, padding = STEMS[stem_stride]
        self.stem = conv_bn_relu(in_chans, embed_dims[0], kernel, stride=stem_stride, padding=padding)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([ResidualBlock(width, HireMixer(width, size=size, shift=cycle[i % len(cycle)]),
                                        mlp_ratio=ratio, drop_path=next(rates), norm=Norm) for i in range(depth)])
            for width, depth, ratio, size, cycle in zip(embed_dims, depths, mlp_ratios, region_sizes, shifts)])
        self.downsamples = nn.LayerList([conv_bn_relu(width, next_width, 3, stride=2, padding=1)
                                         for width, next_width in zip(embed_dims[:-1], embed_dims[1:])])
        self.norm = Norm(self.num_features)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(conv_stage_outputs(self, images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage before down-sampling, not normalised: [B, C_i, H / stride, W / stride]."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in conv_stage_outputs(self, images)]
