"""CycleMLP: A MLP-like Architecture for Dense Prediction (Chen et al. 2021, arXiv:2107.10224).

Official code: https://github.com/ShoufaChen/CycleMLP (cycle_mlp.py). Deviations: CycleFC is a shift and a
linear map instead of the deformable convolution whose offsets never change (the result is the same);
``stem_stride`` 2 is ours, for small images. Initialisation is the official one: truncated normal 0.02 and
zero bias for linear maps, PyTorch's default for convolutions.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
from typing import Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.layers.basic import LayerNorm, Linear, linear_rates
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.initialisers import attr
from passl_mixer.layers.stages import STEMS, ResidualBlock, check_stages, conv_stage_outputs, weigh_branches


class CycleFC(nn.Layer):
    """Linear map over channels that reads neighbours: channel i from position 0, +1, -1 for i % 3 = 0, 1, 2.

    Args:
        width: channels in and out.
        axis: 1 reads along the height, 2 along the width of [B, H, W, C].
    Source: Chen et al. 2021, arXiv:2107.10224, section 3.2. Padded with zeros: the cycle is over channels.
    """

    def __init__(self, width: int, *, axis: int):
        super().__init__()
        self.axis = axis
        init = nn.initializer.TruncatedNormal(std=0.02)
        self.weight = self.create_parameter([width, width], attr=attr(init))
        self.bias = self.create_parameter([width], is_bias=True)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        return ops.linear(ops.cycle_shift(x_bhwc, self.axis), self.weight, self.bias)


class CycleMixer(nn.Layer):
    """Width, height and channel branches, weighted per channel by a softmax; [B, H, W, C] to the same."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.along_width = CycleFC(width, axis=2)
        self.along_height = CycleFC(width, axis=1)
        self.channel = Linear(width, width, bias=False)
        self.reweight1 = Linear(width, width // 4)
        self.reweight2 = Linear(width // 4, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        branches = [self.along_width(x_bhwc), self.along_height(x_bhwc), self.channel(x_bhwc)]
        return self.proj(weigh_branches(branches, self.reweight1, self.reweight2))


class CycleMLP(nn.Layer):
    """CycleMLP without a classifier; takes any image size.

    Args:
        in_chans: image channels.
        embed_dims: width of each stage, 4 at least.
        depths: blocks of each stage.
        mlp_ratios: hidden width of the channel MLPs of each stage, as a multiple of its width.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks,
            in [0, 1); the authors train with 0.1.
        act: activation of the channel MLPs, "gelu" or "gelu_tanh".
        stem_stride: 4 is published (7 x 7 convolution); 2 is a 3 x 3 convolution for small images.
    Raises:
        BadInput: the options do not fit each other.
    Source: Chen et al. 2021, arXiv:2107.10224, section 3 and table 1.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, embed_dims: Sequence[int] = (64, 128, 320, 512),
                 depths: Sequence[int] = (2, 2, 4, 2), mlp_ratios: Sequence[float] = (4, 4, 4, 4),
                 drop_path_rate: float = 0.0, act: str = "gelu", stem_stride: int = 4):
        super().__init__()
        check_stages(in_chans=in_chans, stem_stride=stem_stride, embed_dims=embed_dims, depths=depths,
                     mlp_ratios=mlp_ratios)
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.feature_channels = tuple(embed_dims)
        self.feature_strides = tuple(stem_stride * 2 ** i for i in range(len(embed_dims)))
        kernel, padding = STEMS[stem_stride]
        self.stem = torch_conv(in_chans, embed_dims[0], kernel, stride=stem_stride, padding=padding)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([ResidualBlock(width, CycleMixer(width), mlp_ratio=ratio, act=act, drop_path=next(rates))
                          for _ in range(depth)])
            for width, depth, ratio in zip(embed_dims, depths, mlp_ratios)])
        self.downsamples = nn.LayerList([torch_conv(width, next_width, 3, stride=2, padding=1)
                                         for width, next_width in zip(embed_dims[:-1], embed_dims[1:])])
        self.norm = LayerNorm(self.num_features)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(conv_stage_outputs(self, images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage before down-sampling, not normalised: [B, C_i, H / stride, W / stride]."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in conv_stage_outputs(self, images)]
