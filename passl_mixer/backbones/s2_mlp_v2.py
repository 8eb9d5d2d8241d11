"""S2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision (Yu et al. 2021, arXiv:2108.01072).

There is no official code and there are no published weights. The hidden width of the split attention is not
published either: it is C / 4 here, which gives the published sizes (25.1 M and 55.3 M parameters); with C, as
third-party code has it, the networks are a quarter larger. Not published, and taken from the recipe of ViP, whose
shell the networks share: LayerNorm epsilon 1e-5, drop path rising linearly from 0 over all blocks, truncated
normal 0.02 and zero bias for linear maps, PyTorch's default for convolutions, a LayerNorm before the mean.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
import math
from typing import Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.backbones.s2_mlp_v1 import (
    HEIGHT_FIRST,
    WIDTH_FIRST,
    check_hidden,
    check_multiple,
    check_quarters,
)
from passl_mixer.layers.basic import LayerNorm, Linear, linear_rates, maps_nhwc
from passl_mixer.layers.checks import check_act, check_images, check_positive, check_same_length
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.recompute import apply_block
from passl_mixer.layers.stages import ResidualBlock


class SplitAttention(nn.Layer):
    """Sum of three maps [B, H, W, C], weighted per channel by a softmax over the three.

    The scores come from the sum over maps and positions through linear maps without bias, C to C / 4 to 3 C.

    Args:
        width: channels C, a multiple of 4.
    Source: Yu et al. 2021, arXiv:2108.01072, section 3.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.fc1 = Linear(width, width // 4, bias=False)
        self.fc2 = Linear(width // 4, 3 * width, bias=False)

    def forward(self, a_bhwc, b_bhwc, c_bhwc):
        """The weighted sum of three maps.

        Args:
            a_bhwc, b_bhwc, c_bhwc: [B, H, W, C] each.
        Returns:
            [B, H, W, C].
        """
        maps = [a_bhwc, b_bhwc, c_bhwc]
        sum_bc = ops.branch_mean(maps) * math.prod(a_bhwc.shape[1:3])
        # The channel is the fastest index of the 3 C scores.
        scores = self.fc2(ops.activate(self.fc1(sum_bc), "gelu")).reshape([-1, 3, self.width])
        return ops.weigh_branches(maps, ops.softmax(scores, 1).astype(a_bhwc.dtype).unbind(axis=1))


class S2Mixer(nn.Layer):
    """Linear map to 3 C; thirds shifted height first, width first and not at all; split attention; C to C.

    [B, H, W, C] to the same.
    """

    def __init__(self, width: int):
        super().__init__()
        self.expand = Linear(width, 3 * width)
        self.attention = SplitAttention(width)
        self.proj = Linear(width, width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        maps = ops.shift_quarters(self.expand(x_bhwc), [HEIGHT_FIRST, WIDTH_FIRST, 0])
        return self.proj(self.attention(*maps))


class S2MLPv2(nn.Layer):
    """S2-MLPv2 without a classifier; takes images whose sides are multiples of the product of ``patch_sizes``.

    Args:
        in_chans: image channels.
        patch_sizes: side of the patches that every stage begins with, in positions of the stage before.
        embed_dims: width of each stage, multiples of 4.
        depths: blocks of each stage.
        mlp_ratio: hidden width of the channel MLPs as a multiple of their stage's width.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks,
            in [0, 1).
        act: activation of the channel MLPs, "gelu", "gelu_tanh" or "relu".
    Raises:
        BadInput: the options do not fit each other, or an image's sides are no such multiples.
    Source: Yu et al. 2021, arXiv:2108.01072, section 3. The attention is fed with a sum over positions, not a
        mean, so its scores grow with the image: another size than the training's is another sharpness.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, patch_sizes: Sequence[int] = (7, 2),
                 embed_dims: Sequence[int] = (192, 384), depths: Sequence[int] = (4, 14), mlp_ratio: float = 3.0,
                 drop_path_rate: float = 0.0, act: str = "gelu"):
        super().__init__()
        check_same_length(patch_sizes=patch_sizes, embed_dims=embed_dims, depths=depths)
        check_positive(in_chans=in_chans, patch_sizes=patch_sizes, embed_dims=embed_dims, depths=depths,
                       mlp_ratio=mlp_ratio)
        check_quarters(embed_dims=embed_dims)
        check_hidden(mlp_ratio, min(embed_dims), "the smallest of embed_dims,")
        check_act(act)
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.feature_channels = tuple(embed_dims)
        self.feature_strides = tuple(math.prod(patch_sizes[:i + 1]) for i in range(len(patch_sizes)))
        self.stems = nn.LayerList([torch_conv(before, width, patch, stride=patch) for before, width, patch
                                   in zip([in_chans, *embed_dims[:-1]], embed_dims, patch_sizes)])
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([ResidualBlock(width, S2Mixer(width), mlp_ratio=mlp_ratio, act=act, drop_path=next(rates))
                          for _ in range(depth)])
            for width, depth in zip(embed_dims, depths)])
        self.norm = LayerNorm(self.num_features)

    def _stage_outputs(self, images) -> list:
        check_images(images, self.in_chans)
        check_multiple(images, self.feature_strides[-1])
        x_bchw, outputs = images, []
        for stem, stage in zip(self.stems, self.stages):
            x_bhwc = maps_nhwc(stem, x_bchw)
            for block in stage:
                x_bhwc = apply_block(block, x_bhwc)
            outputs.append(x_bhwc)
            x_bchw = ops.permute(x_bhwc, [0, 3, 1, 2])
        return outputs

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(self._stage_outputs(images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage, not normalised: [B, C_i, H / stride, W / stride]."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in self._stage_outputs(images)]
