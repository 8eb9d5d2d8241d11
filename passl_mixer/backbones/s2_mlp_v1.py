"""S2-MLP: Spatial-Shift MLP Architecture for Vision (Yu et al. 2021, arXiv:2106.07477).

There is no official code and there are no published weights. Not published, and taken from the recipe of ViP:
LayerNorm epsilon 1e-5, drop path rising linearly from 0 over the blocks, truncated normal 0.02 and zero bias
for linear maps, PyTorch's default for the patch convolution, a LayerNorm before the mean over positions.
Unresolved: the described networks have 72.2 M (wide) and 53.9 M (deep) parameters, 1 to 3 M more than the
published 71 M and 51 M; their multiply-accumulates agree with the published ones.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, LayerNorm, Linear, Mlp, linear_rates, maps_nhwc
from passl_mixer.layers.checks import check_act, check_images, check_positive
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.recompute import apply_block

# Axis of [B, H, W, C] along which the first two quarters of the channels move; the other two move along the other.
HEIGHT_FIRST, WIDTH_FIRST = 1, 2


def spatial_shift(x_bhwc, first_axis: int):
    """Move the four quarters of the channels by +1, -1, +1, -1.

    Args:
        x_bhwc: [B, H, W, C]; C a multiple of 4.
        first_axis: axis of the first two quarters, ``HEIGHT_FIRST`` or ``WIDTH_FIRST``.
    Returns:
        [B, H, W, C]; border rows and columns keep their value where nothing moves into them.
    Source: Yu et al. 2021, arXiv:2106.07477, its pseudo-code.
    """
    return ops.shift_quarters(x_bhwc, [first_axis])[0]


def check_quarters(**widths) -> None:
    """Check that every width divides into the four shifted quarters.

    Raises:
        BadInput: a width that is no multiple of 4.
    """
    for name, value in widths.items():
        for width in value if isinstance(value, (list, tuple)) else [value]:
            if width % 4:
                below, above = width // 4 * 4, width // 4 * 4 + 4
                near = f"{below} or {above}" if below else f"{above}"
                raise BadInput(f"{name} is {value}, expected multiples of 4 (the channels are shifted in quarters); "
                               f"take {near} for {width}")


def check_hidden(mlp_ratio: float, width: int, name: str) -> None:
    """Check that an MLP has a hidden unit.

    Args:
        mlp_ratio: hidden width as a multiple of ``width``.
        width: channels in.
        name: of the option that gives ``width``, for the message.
    Raises:
        BadInput: it would have none.
    """
    if mlp_ratio * width < 1:
        raise BadInput(f"mlp_ratio {mlp_ratio} leaves no hidden unit at {name} {width}; raise one of them")


def check_multiple(images, stride: int) -> None:
    """Check that both sides of images [B, C, H, W] are multiples of ``stride``; unknown sides pass.

    Raises:
        BadInput: a side that is no multiple.
    """
    sides = images.shape[2:]
    # In an exported program an unknown side is -1 or a symbol.
    known = [side for side in sides if isinstance(side, int) and side != -1]
    if any(side < 1 or side % stride for side in known):
        near = [" x ".join(str(max(1, side // stride + more) * stride) for side in sides) for more in (0, 1)]
        raise BadInput(f"images are {sides[0]} x {sides[1]} pixels, expected multiples of {stride}; "
                       f"{near[0]} and {near[1]} fit")


class S2Block(nn.Layer):
    """``x += fc2(shift(gelu(fc1(LN(x))))); x += mlp(LN(x))``; [B, H, W, C] to the same.

    Args:
        width: channels C, a multiple of 4.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        act: activation of both.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, width: int, *, mlp_ratio: float, act: str, drop_path: float):
        super().__init__()
        self.act = act
        self.norm1 = LayerNorm(width)
        self.fc1 = Linear(width, width)
        self.fc2 = Linear(width, width)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), act=act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        shifted = spatial_shift(self.fc1(self.norm1(x_bhwc), self.act), HEIGHT_FIRST)
        x_bhwc = x_bhwc + self.drop_path(self.fc2(shifted))
        return x_bhwc + self.drop_path(self.mlp(self.norm2(x_bhwc)))


class S2MLPv1(nn.Layer):
    """S2-MLP without a classifier; takes images whose sides are multiples of ``patch_size``.

    Args:
        in_chans: image channels.
        patch_size: side of a patch in pixels.
        embed_dim: width C of every position, a multiple of 4.
        num_blocks: number of blocks.
        mlp_ratio: hidden width of the channel MLP as a multiple of ``embed_dim``.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0, in [0, 1).
        act: "gelu", "gelu_tanh" or "relu".
    Raises:
        BadInput: the options do not fit each other, or an image's sides are no multiples of ``patch_size``.
    Source: Yu et al. 2021, arXiv:2106.07477, section 3.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, patch_size: int = 16, embed_dim: int = 768, num_blocks: int = 12,
                 mlp_ratio: float = 4.0, drop_path_rate: float = 0.0, act: str = "gelu"):
        super().__init__()
        check_positive(in_chans=in_chans, patch_size=patch_size, embed_dim=embed_dim, num_blocks=num_blocks,
                       mlp_ratio=mlp_ratio)
        check_quarters(embed_dim=embed_dim)
        check_hidden(mlp_ratio, embed_dim, "embed_dim")
        check_act(act)
        self.in_chans, self.num_features = in_chans, embed_dim
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size)
        self.blocks = nn.LayerList([S2Block(embed_dim, mlp_ratio=mlp_ratio, act=act, drop_path=rate)
                                    for rate in linear_rates(drop_path_rate, num_blocks)])
        self.norm = LayerNorm(embed_dim)

    def positions(self, images):
        """Normalised positions of the last block, [B, H / patch, W / patch, C], from [B, in_chans, H, W]."""
        check_images(images, self.in_chans)
        check_multiple(images, self.feature_strides[0])
        x_bhwc = maps_nhwc(self.stem, images)
        for block in self.blocks:
            x_bhwc = apply_block(block, x_bhwc)
        return self.norm(x_bhwc)

    def forward(self, images):
        """Mean of the normalised positions, [B, embed_dim]."""
        return self.positions(images).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H / patch, W / patch]: the normalised positions, whose mean is ``forward``."""
        return [ops.permute(self.positions(images), [0, 3, 1, 2])]
