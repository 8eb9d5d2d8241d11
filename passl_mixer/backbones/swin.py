"""Swin Transformer: Hierarchical Vision Transformer using Shifted Windows (Liu et al. 2021, arXiv:2103.14030).

The comparison backbone with local attention and stages. Official code: https://github.com/microsoft/Swin-Transformer
(models/swin_transformer.py). Initialisation is the official one: truncated normal 0.02 for linear maps and bias
tables, zero biases, PyTorch's default for the patch projection. Deviations, none of which changes the published
network at 224 px: any image size works, as images, windows and merged patches are padded at the bottom and right;
attention never reaches the padding of windows (in the official detection code it does); an axis that fits into one
window is not shifted (official: neither is); the mask adds -1e4, not -100. Bias tables are not decayed, as there.

Shapes: B images, H x W positions, C channels, W windows of N = side * side positions, h heads.
"""
from typing import Optional, Sequence

import numpy
import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.attention import SelfAttention, check_block
from passl_mixer.layers.basic import DropPath, LayerNorm, Linear, Mlp, linear_rates, maps_nhwc
from passl_mixer.layers.checks import check_images, check_positive, check_same_length
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.initialisers import attr
from passl_mixer.layers.stages import four_neighbours, stage_outputs

MASKED = -1e4  # exp() of it is 0 in float32, and it fits into float16


def pad_to_multiple(x, side: int, data_format: str = "NHWC"):
    """Zeros at the bottom and right until H and W are multiples of a number; the same tensor where they are.

    Args:
        x: [B, H, W, C], or [B, C, H, W] in the layout "NCHW".
        side: the number, 1 or more.
        data_format: "NHWC" or "NCHW".
    """
    height = data_format.index("H")
    bottom, right = (-length % side for length in x.shape[height:height + 2])
    return ops.pad_axis(ops.pad_axis(x, height, 0, bottom), height + 1, 0, right)


def _axis_regions(length: int, side: int, shift: int) -> numpy.ndarray:
    padded = length + -length % side
    source = (numpy.arange(padded) + shift) % padded  # where the rolled axis reads
    return numpy.where(source >= length, 2, (source < shift).astype("int32"))  # 2: padding, 1: came round


def window_regions(size: Sequence[int], side: int, shifts: Sequence[int]) -> Optional[numpy.ndarray]:
    """Region numbers of the positions in a window; positions with the same number are neighbours in the image.

    Args:
        size: height and width before padding.
        side: positions on a window's side.
        shifts: how far the map was rolled up and left, in positions, each in [0, side).
    Returns:
        Integers [W, side^2], or None if every window is one region (section 3.2 and figure 4 of the paper).
    """
    rows, columns = (_axis_regions(length, side, shift) for length, shift in zip(size, shifts))
    regions = 3 * rows[:, None] + columns[None, :]
    if not regions.any():
        return None
    cut = regions.reshape(len(rows) // side, side, len(columns) // side, side).transpose(0, 2, 1, 3)
    return cut.reshape(-1, side * side)


def window_mask(regions: Optional[numpy.ndarray]):
    """Scores' summand [W, 1, N, N]: 0 within a region, ``MASKED`` between two; None for None."""
    if regions is None:
        return None
    regions_wn = paddle.to_tensor(regions.astype("float32"))
    return ((regions_wn.unsqueeze(1) != regions_wn.unsqueeze(2)).astype("float32") * MASKED).unsqueeze(1)


def shifted_mask(size: Sequence[int], side: int, shifts: Sequence[int]):
    """``window_mask`` of ``window_regions``.

    Args:
        size, side, shifts: as of ``window_regions``.
    """
    return window_mask(window_regions(size, side, shifts))


def relative_index(side: int) -> numpy.ndarray:
    """Row of the bias table for every pair (query, key) of a window's positions, [N, N]."""
    y, x = numpy.divmod(numpy.arange(side * side), side)
    dy, dx = y[:, None] - y[None, :] + side - 1, x[:, None] - x[None, :] + side - 1
    return dy * (2 * side - 1) + dx


def bias_rows(side: int):
    """``relative_index`` as one row of numbers, a tensor."""
    return paddle.to_tensor(relative_index(side).reshape(-1))


class WindowAttention(nn.Layer):
    """Self-attention within windows of [B, H, W, C], with a learned bias per head and relative position.

    Args:
        width: channels C in and out.
        num_heads: number of heads; divides ``width``.
        side: positions on a window's side.
        shift: how far windows are shifted, in positions; 0 for none.
    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2 and equation 4.
    """

    def __init__(self, width: int, *, num_heads: int, side: int, shift: int):
        super().__init__()
        self.side, self.shift, self.num_heads = side, shift, num_heads
        self.attention = SelfAttention(width, num_heads)
        self.bias_table = self.create_parameter([(2 * side - 1) ** 2, num_heads],
                                                attr=attr(nn.initializer.TruncatedNormal(std=0.02)))

    def _bias(self, mask):
        positions = self.side ** 2
        bias_nnh = ops.gather_rows(self.bias_table, ops.constant(bias_rows, self.side))
        bias_hnn = bias_nnh.reshape([positions, positions, self.num_heads]).transpose([2, 0, 1])
        return bias_hnn if mask is None else bias_hnn + mask

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        size = x_bhwc.shape[1:3]
        shifts = [self.shift if length > self.side else 0 for length in size]
        mask = ops.constant(shifted_mask, tuple(size), self.side, tuple(shifts))
        layers = self.attention
        qkv_bhwc = layers.qkv(pad_to_multiple(x_bhwc, self.side))       # of a position alone, so before windows are cut
        q, k, v = ops.split_windows(qkv_bhwc, 3, self.num_heads, self.side, shifts)
        heads = layers.attend(q, k, v, self._bias(mask))
        y_bhwc = layers.proj(ops.join_windows(heads, *qkv_bhwc.shape[1:3], self.side, shifts))
        if y_bhwc.shape[1:3] == size:
            return y_bhwc
        return y_bhwc[:, :size[0], :size[1]]


class SwinBlock(nn.Layer):
    """``x += attention(LN(x)); x += mlp(LN(x))`` (equation 3 of the paper); [B, H, W, C] to the same.

    Args:
        width, num_heads, side, shift: as in ``WindowAttention``.
        mlp_ratio, drop_path: hidden width as a multiple of ``width``; rate of stochastic depth.
    """

    def __init__(self, width: int, *, num_heads: int, side: int, shift: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attention = WindowAttention(width, num_heads=num_heads, side=side, shift=shift)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        x_bhwc = x_bhwc + self.drop_path(self.attention(self.norm1(x_bhwc)))
        return x_bhwc + self.drop_path(self.mlp(self.norm2(x_bhwc)))


class PatchMerging(nn.Layer):
    """Concatenate 2 x 2 neighbours of [B, H, W, C], normalise, map 4 C channels to 2 C without bias."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = LayerNorm(4 * width)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to [B, H / 2, W / 2, 2 C], sides rounded up."""
        x_bhwc = pad_to_multiple(x_bhwc, 2)
        return self.reduction(self.norm(four_neighbours(x_bhwc)))


class Swin(nn.Layer):
    """Swin Transformer without a classifier; takes any image size.

    Args:
        in_chans: image channels.
        patch_size: side of a patch in pixels, the stride of the first stage.
        embed_dim: width of the first stage; doubles with every stage.
        depths: blocks of each stage; every second one is shifted by half a window.
        num_heads: attention heads of each stage; 32 channels each in the published networks.
        window_size: positions on a window's side.
        mlp_ratio: hidden width of the MLPs as a multiple of their stage's width.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0, in [0, 1); swin_t has 0.2.
    Raises:
        BadInput: the options do not fit each other.
    Source: Liu et al. 2021, arXiv:2103.14030, section 3.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, patch_size: int = 4, embed_dim: int = 96,
                 depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (3, 6, 12, 24),
                 window_size: int = 7, mlp_ratio: float = 4.0, drop_path_rate: float = 0.0):
        super().__init__()
        check_same_length(depths=depths, num_heads=num_heads)
        check_positive(in_chans=in_chans, patch_size=patch_size, embed_dim=embed_dim, depths=depths,
                       num_heads=num_heads, window_size=window_size, mlp_ratio=mlp_ratio)
        widths = tuple(embed_dim * 2 ** i for i in range(len(depths)))
        for width, heads in zip(widths, num_heads):
            check_block(width, heads, mlp_ratio)
        self.in_chans, self.patch_size, self.num_features = in_chans, patch_size, widths[-1]
        self.feature_channels = widths
        self.feature_strides = tuple(patch_size * 2 ** i for i in range(len(depths)))
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size)
        self.stem_norm = LayerNorm(embed_dim)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([SwinBlock(width, num_heads=heads, side=window_size, shift=i % 2 * (window_size // 2),
                                    mlp_ratio=mlp_ratio, drop_path=next(rates)) for i in range(depth)])
            for width, depth, heads in zip(widths, depths, num_heads)])
        self.merges = nn.LayerList([PatchMerging(width) for width in widths[:-1]])
        self.norm = LayerNorm(self.num_features)

    def _stage_outputs(self, images) -> list:
        check_images(images, self.in_chans)
        if -1 in images.shape[2:]:
            raise BadInput(f"images have shape {images.shape}: Swin cuts its windows when a program is exported, "
                           "so height and width must be known; export with a fixed image size")
        x_bhwc = self.stem_norm(maps_nhwc(self.stem, pad_to_multiple(images, self.patch_size, "NCHW")))
        return stage_outputs(x_bhwc, self.stages, self.merges)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, num_features]."""
        return self.norm(self._stage_outputs(images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage before merging, not normalised: [B, C_i, H / stride, W / stride], rounded up."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in self._stage_outputs(images)]
