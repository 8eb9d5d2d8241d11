"""ConvMLP: Hierarchical Convolutional MLPs for Vision (Li et al. 2021, arXiv:2109.04454).

Official code: https://github.com/SHI-Labs/Convolutional-MLPs (src/convmlp.py). Deviation:
``stem_stride`` below 4 is ours, for small images. Initialisation is the official one: truncated normal 0.02
for linear maps, Kaiming normal over fan_out for convolutions, PyTorch's uniform for their biases.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
import math
from typing import Optional, Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, LayerNorm, Mlp, linear_rates
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.checks import check_images, check_positive, check_same_length
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.data_format import from_nchw, layout_of, to_nchw
from passl_mixer.layers.initialisers import attr, torch_uniform
from passl_mixer.layers.pooling import MaxPool2D
from passl_mixer.layers.recompute import apply_block
from passl_mixer.layers.stages import in_nhwc, stage_outputs

# stem_stride: (stride of the first convolution, stride of the max-pool or None)
STEMS = {4: (2, 2), 2: (2, None), 1: (1, None)}


def conv(in_chans: int, out_chans: int, kernel: int, *, stride: int = 1, bias: bool = False, groups: int = 1):
    """Convolution with the official initialisation; its maps have height H / stride and width W / stride, rounded up.

    Args:
        in_chans, out_chans: channels in and out.
        kernel: side of the kernel, odd.
        stride: positions between outputs.
        bias: whether a bias is added.
        groups: number of parts of the channels that are convolved apart.
    """
    init = nn.initializer.Normal(0.0, math.sqrt(2.0 / (out_chans * kernel ** 2)))
    bias_attr = attr(torch_uniform(in_chans * kernel ** 2)) if bias else False
    return Conv2D(in_chans, out_chans, kernel, stride=stride, padding=kernel // 2, groups=groups,
                     weight_attr=attr(init), bias_attr=bias_attr)


class ConvBnRelu(nn.Sequential):
    """Convolution, BatchNorm with ReLU for each ``(in_chans, out_chans, kernel, stride)``; maps [B, C, H, W].

    The Identity in place of the ReLU keeps the layers' numbers, and with them the names of the parameters.
    """

    def __init__(self, *chans_kernel_stride):
        super().__init__(*(layer for in_chans, out_chans, kernel, stride in chans_kernel_stride for layer in (
            conv(in_chans, out_chans, kernel, stride=stride), BatchNorm2D(out_chans, post_act="relu"), nn.Identity())))

    def forward(self, x, data_format: Optional[str] = None):
        """Maps x [B, C, H, W], or channels last, to the same layout."""
        for layer in self:
            x = x if isinstance(layer, nn.Identity) else layer(x, data_format)
        return x


class ConvMlpBlock(nn.Layer):
    """``x += mlp(LN(x)); x = depthwise(LN(x)); x += mlp(LN(x))``; [B, H, W, C] to the same.

    Args:
        width: channels C.
        mlp_ratio: hidden width of the MLPs as a multiple of ``width``.
        act: activation of the MLPs.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, width: int, *, mlp_ratio: float, act: str, drop_path: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = LayerNorm(width)
        self.channel_mlp1 = Mlp(width, hidden, act=act)
        self.connect_norm = LayerNorm(width)
        self.connect = conv(width, width, 3, groups=width)
        self.norm2 = LayerNorm(width)
        self.channel_mlp2 = Mlp(width, hidden, act=act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        # Sums are on rows: exported, a map that is used twice would be copied to be seen as rows.
        shape = [-1, *x_bhwc.shape[1:]]
        x_bsc = ops.flatten(x_bhwc, 1, 2)
        x_bsc = x_bsc + self.drop_path(self.channel_mlp1(self.norm1(x_bsc)))
        x_bsc = ops.flatten(self.connect(self.connect_norm(x_bsc).reshape(shape), data_format="NHWC"), 1, 2)
        return (x_bsc + self.drop_path(self.channel_mlp2(self.norm2(x_bsc)))).reshape(shape)


class ConvMlpStage(nn.Layer):
    """The blocks of one stage, and the down-sampling to the next (none after the last).

    Args:
        width: channels C.
        next_width: channels of the next stage; None after the last.
        depth: number of blocks.
        mlp_ratio, act: as in ``ConvMlpBlock``.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0, in [0, 1).
    """

    def __init__(self, width: int, next_width, *, depth: int, mlp_ratio: float, act: str,
                 drop_path_rate: float):
        super().__init__()
        # The official code starts the rates at 0 again in every stage (src/modules.py).
        self.blocks = nn.LayerList([ConvMlpBlock(width, mlp_ratio=mlp_ratio, act=act, drop_path=rate)
                                    for rate in linear_rates(drop_path_rate, depth)])
        self.downsample = conv(width, next_width, 3, stride=2, bias=True) if next_width else None


class ConvMLP(nn.Layer):
    """ConvMLP without a classifier; takes any image size.

    Args:
        in_chans: image channels.
        stem_channels: width after the tokenizer and of the convolutional blocks; even.
        num_conv_blocks: number of convolutional blocks.
        embed_dims: width of each MLP stage; the first is also the hidden width of the convolutional blocks.
        depths: blocks of each MLP stage.
        mlp_ratios: hidden width of the channel MLPs of each stage, as a multiple of its width.
        drop_path_rate: stochastic-depth rate of the last block of every stage, in [0, 1); published: 0.1.
        act: "gelu" or "gelu_tanh".
        stem_stride: 4 is published; 2 leaves out the max-pool, 1 the stride of the first convolution as well.
    Raises:
        BadInput: the options do not fit each other.
    Source: Li et al. 2021, arXiv:2109.04454, figure 2 and table 1.
    """

    img_size = None
    data_formats, data_format = ("NCHW", "NHWC"), "NCHW"       # of the stem's maps; see layers/data_format.py

    def __init__(self, *, in_chans: int = 3, stem_channels: int = 64, num_conv_blocks: int = 2,
                 embed_dims: Sequence[int] = (128, 256, 512), depths: Sequence[int] = (2, 4, 2),
                 mlp_ratios: Sequence[float] = (2, 2, 2), drop_path_rate: float = 0.0, act: str = "gelu",
                 stem_stride: int = 4):
        super().__init__()
        check_same_length(embed_dims=embed_dims, depths=depths, mlp_ratios=mlp_ratios)
        check_positive(in_chans=in_chans, stem_channels=stem_channels, embed_dims=embed_dims, depths=depths,
                       mlp_ratios=mlp_ratios)
        if stem_stride not in STEMS or stem_channels % 2 or num_conv_blocks < 0:
            raise BadInput(f"stem_stride is {stem_stride}, stem_channels {stem_channels}, num_conv_blocks "
                           f"{num_conv_blocks}; expected 4, 2 or 1, an even number, 0 or more")
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.feature_channels = tuple(embed_dims)
        self.feature_strides = tuple(stem_stride * 2 ** (i + 1) for i in range(len(embed_dims)))
        half, first = stem_channels // 2, embed_dims[0]
        conv_stride, pool_stride = STEMS[stem_stride]
        self.pool = MaxPool2D(3, stride=pool_stride, padding=1) if pool_stride else None
        self.tokenizer = ConvBnRelu((in_chans, half, 3, conv_stride), (half, half, 3, 1), (half, stem_channels, 3, 1))
        # The ReLU ends the branch; nothing follows the addition.
        self.conv_blocks = nn.LayerList([ConvBnRelu(
            (stem_channels, first, 1, 1), (first, first, 3, 1), (first, stem_channels, 1, 1))
            for _ in range(num_conv_blocks)])
        self.downsample = conv(stem_channels, first, 3, stride=2, bias=True)
        self.stages = nn.LayerList([
            ConvMlpStage(width, after, depth=depth, mlp_ratio=ratio, act=act, drop_path_rate=drop_path_rate)
            for width, after, depth, ratio in zip(embed_dims, [*embed_dims[1:], None], depths, mlp_ratios)])
        self.norm = LayerNorm(self.num_features)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(ops.flatten(self._maps(images)[-1], 1, 2)).mean(axis=1)

    def feature_maps(self, images) -> list:
        """Output of every stage before down-sampling, not normalised: [B, C_i, H / stride, W / stride]."""
        return [to_nchw(x_bhwc, "NHWC") for x_bhwc in self._maps(images)]

    def _maps(self, images) -> list:
        """``feature_maps`` as they are computed, [B, H, W, C]; x before them has the layout ``data_format``."""
        check_images(images, self.in_chans)
        data_format = layout_of(self, images)
        x = self.tokenizer(from_nchw(images, data_format), data_format)
        if self.pool is not None:
            x = self.pool(x, data_format)
        for block in self.conv_blocks:
            x = x + apply_block(block, x, data_format)
        x = self.downsample(x, data_format)
        x_bhwc = x if data_format == "NHWC" else from_nchw(x, "NHWC")
        return stage_outputs(x_bhwc, [stage.blocks for stage in self.stages],
                             [in_nhwc(stage.downsample) for stage in self.stages[:-1]])
