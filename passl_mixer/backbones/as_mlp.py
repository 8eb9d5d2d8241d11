"""AS-MLP: An Axial Shifted MLP Architecture for Vision (Lian et al. 2021, arXiv:2107.08391).

Official code: https://github.com/svip-lab/AS-MLP (models/as_mlp.py, models/shift_cuda.py). Its 1 x 1 convolutions are
linear maps here, over the last axis. No deviation in the result:
- every norm is a GroupNorm of one group, over positions and channels of an image together, so that a feature depends
  on the size of the image and on all of it;
- initialisation is PyTorch's default for convolutions, also for the 1 x 1 ones: the official one reaches only the head;
- heights and widths that do not halve down to the last stage are refused, as there.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
from typing import Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, linear_rates, maps_nhwc, two_layers
from passl_mixer.layers.checks import check_images, check_positive
from passl_mixer.layers.convolution import torch_conv, torch_pointwise
from passl_mixer.layers.group_norm import GroupNorm1
from passl_mixer.layers.stages import four_neighbours, stage_outputs


def axial_shift(x_bhwc, axis: int, shift_size: int):
    """Shift groups of channels by -(shift_size // 2) ... shift_size // 2 along one axis, zero outside.

    Args:
        x_bhwc: [B, H, W, C].
        axis: 1 shifts along the height, 2 along the width.
        shift_size: number of groups, odd. A group has ceil(C / shift_size) channels: the last one may be smaller, and
            where C is small the last ones may be missing, as in the official code.
    Returns:
        [B, H, W, C]; position p of group g is position p - (g - shift_size // 2) of the input, or 0.
    Source: official code, shift_cuda.py (torch_shift is the same in plain operators).
    """
    reach = shift_size // 2
    return ops.move_groups(x_bhwc, axis, list(range(-reach, reach + 1)))


class AxialShift(nn.Layer):
    """``proj(norm(gelu(linear(shift_w(y))) + gelu(linear(shift_h(y)))))`` with ``y = gelu(norm(linear(x)))``.

    [B, H, W, C] to the same.
    """

    def __init__(self, width: int, shift_size: int):
        super().__init__()
        self.shift_size = shift_size
        self.enter = torch_pointwise(width, width)
        self.norm1 = GroupNorm1(width)
        self.along_width = torch_pointwise(width, width)
        self.along_height = torch_pointwise(width, width)
        self.norm2 = GroupNorm1(width)
        self.proj = torch_pointwise(width, width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        y = ops.activate(self.norm1(self.enter(x_bhwc)), "gelu")
        w = self.along_width(axial_shift(y, 2, self.shift_size), "gelu")
        h = self.along_height(axial_shift(y, 1, self.shift_size), "gelu")
        return self.proj(self.norm2(w + h))


class AxialShiftBlock(nn.Layer):
    """``x += axial_shift(norm(x)); x += mlp(norm(x))``; [B, H, W, C] to the same.

    Args:
        width: channels C.
        shift_size: as in ``ASMLP``.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, width: int, *, shift_size: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = GroupNorm1(width)
        self.mixer = AxialShift(width, shift_size)
        self.norm2 = GroupNorm1(width)
        self.fc1 = torch_pointwise(width, hidden)
        self.fc2 = torch_pointwise(hidden, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        x_bhwc = x_bhwc + self.drop_path(self.mixer(self.norm1(x_bhwc)))
        return x_bhwc + self.drop_path(two_layers(self, self.norm2(x_bhwc), "gelu"))


class PatchMerging(nn.Layer):
    """Concatenate 2 x 2 neighbours, normalise, map 4 C channels to 2 C; [B, H, W, C] to [B, H / 2, W / 2, 2 C]."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = GroupNorm1(4 * width)
        self.reduction = torch_pointwise(4 * width, 2 * width, bias=False)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to [B, H / 2, W / 2, 2 C]."""
        return self.reduction(self.norm(four_neighbours(x_bhwc)))


class ASMLP(nn.Layer):
    """AS-MLP without a classifier; takes any image size that is a multiple of its largest stride.

    Args:
        in_chans: image channels.
        patch_size: side of a patch in pixels, the first stride; every further stage doubles the stride.
        embed_dim: width of the first stage; every further stage doubles it.
        depths: blocks of each stage.
        shift_size: number of channel groups, shifted by -(shift_size // 2) ... shift_size // 2 positions; odd.
        mlp_ratio: hidden width of the channel MLPs as a multiple of the stage's width.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks, in [0, 1);
            the authors train t, s and b with 0.2, 0.3 and 0.5.
    Raises:
        BadInput: the options do not fit each other; in ``forward``, an image size that is not a multiple of the largest
            stride.
    Source: Lian et al. 2021, arXiv:2107.08391, section 3; official code, models/as_mlp.py and configs.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, patch_size: int = 4, embed_dim: int = 96,
                 depths: Sequence[int] = (2, 2, 6, 2), shift_size: int = 5, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0):
        super().__init__()
        check_positive(in_chans=in_chans, patch_size=patch_size, embed_dim=embed_dim, depths=depths,
                       shift_size=shift_size, mlp_ratio=mlp_ratio)
        if shift_size % 2 == 0 or mlp_ratio * embed_dim < 1:
            raise BadInput(f"shift_size is {shift_size}, mlp_ratio {mlp_ratio} at embed_dim {embed_dim}; expected odd "
                           "shift_size (5 is published) and at least one hidden unit")
        widths = [embed_dim * 2 ** i for i in range(len(depths))]
        self.in_chans, self.num_features = in_chans, widths[-1]
        self.feature_channels = tuple(widths)
        self.feature_strides = tuple(patch_size * 2 ** i for i in range(len(depths)))
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size)
        self.stem_norm = GroupNorm1(embed_dim)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([AxialShiftBlock(width, shift_size=shift_size, mlp_ratio=mlp_ratio, drop_path=next(rates))
                          for _ in range(depth)])
            for width, depth in zip(widths, depths)])
        self.downsamples = nn.LayerList([PatchMerging(width) for width in widths[:-1]])
        self.norm = GroupNorm1(self.num_features)

    def _check_size(self, images) -> None:
        check_images(images, self.in_chans)
        stride, sides = self.feature_strides[-1], list(images.shape[2:])
        # Sizes unknown in an exported program, -1 or a tensor, pass.
        if any(isinstance(side, int) and side != -1 and (side < stride or side % stride) for side in sides):
            below = " x ".join(str(max(side // stride, 1) * stride) for side in sides)
            above = " x ".join(str(-(-side // stride) * stride) for side in sides)
            near = below if below == above else f"{below} or {above}"
            raise BadInput(f"images are {sides[0]} x {sides[1]} pixels; this AS-MLP takes multiples of its largest "
                           f"stride, {stride}: {near}, say")

    def _stage_outputs(self, images) -> list:
        self._check_size(images)
        x_bhwc = self.stem_norm(maps_nhwc(self.stem, images))
        return stage_outputs(x_bhwc, self.stages, self.downsamples)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, num_features]."""
        return self.norm(self._stage_outputs(images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage before merging, not normalised: [B, C_i, H / stride, W / stride]."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in self._stage_outputs(images)]
