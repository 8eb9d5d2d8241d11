"""ConvMixer: Patches Are All You Need? (Trockman and Kolter 2022, arXiv:2201.09792).

Official code: https://github.com/locuslab/convmixer (convmixer.py); a second reference is timm's convmixer.py.
The activation comes before every BatchNorm, and only the depth-wise map has a residual. There is no drop path.
Initialisation is PyTorch's default, as in both references. The published 768/32 weights were trained with
ReLU, although the official entry point of that name builds GELU: our variant has ReLU.

Shapes: B images, C = embed_dim; maps are [B, C, H // patch, W // patch] throughout; channels last on a CPU with
compiled passes, and once ``layout.py`` has turned the network.
"""
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import permute
from passl_mixer.layers.checks import check_act, check_images, check_positive
from passl_mixer.layers.layout import images_in, map_out, mean_of
from passl_mixer.layers.map_norms import BatchNorm2D
from passl_mixer.layers.recompute import apply_block
from passl_mixer.layers.torch_layers import torch_conv
from passl_mixer.ops import cpu as ops


class ConvMixerBlock(nn.Layer):
    """``x += BN(act(depthwise(x))); x = BN(act(pointwise(x)))`` (the paper's equations 2 and 3)."""

    def __init__(self, width: int, *, kernel_size: int, act: str):
        super().__init__()
        self.depthwise = torch_conv(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm1 = BatchNorm2D(width, before=act)
        self.pointwise = torch_conv(width, width, 1)
        self.norm2 = BatchNorm2D(width, before=act)

    def forward(self, x, channels_last: bool = False):
        """``x`` mixed, of its shape; [B, H, W, C] with ``channels_last``."""
        x = self.norm1(self.depthwise(x, channels_last), channels_last, plus=x)
        return self.norm2(self.pointwise(x, channels_last), channels_last)


class ConvMixer(nn.Layer):
    """ConvMixer without a classifier; takes any image of one patch or more, of which whole patches are read.

    Args:
        in_chans: image channels.
        embed_dim: width C of every map.
        num_blocks: number of ConvMixer blocks (the paper's depth).
        kernel_size: side of the depth-wise kernels in patches; odd, so that a map keeps its size.
        patch_size: side of a patch in pixels; pixels beyond the last whole patch are not read.
        act: "gelu", "gelu_tanh" or "relu".
    Raises:
        BadInput: if an option is out of its range, or an image is smaller than a patch.
    Source: Trockman and Kolter 2022, arXiv:2201.09792, section 2 and table 1.
    """

    img_size = None
    channels_last = False       # turned by layout.py: maps are [B, H, W, C] inside

    def __init__(self, *, in_chans: int = 3, embed_dim: int = 1024, num_blocks: int = 20, kernel_size: int = 9,
                 patch_size: int = 14, act: str = "gelu"):
        super().__init__()
        check_positive(in_chans=in_chans, embed_dim=embed_dim, num_blocks=num_blocks, kernel_size=kernel_size,
                       patch_size=patch_size)
        if kernel_size % 2 == 0:
            raise BadInput(f"kernel_size is {kernel_size}, expected an odd number; "
                           f"take {kernel_size - 1} or {kernel_size + 1}")
        check_act(act)
        self.in_chans, self.num_features, self.patch_size = in_chans, embed_dim, patch_size
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size)
        self.stem_norm = BatchNorm2D(embed_dim, before=act)
        self.blocks = nn.LayerList([ConvMixerBlock(embed_dim, kernel_size=kernel_size, act=act)
                                    for _ in range(num_blocks)])

    def forward(self, images):
        """Mean over the positions of the last map, [B, embed_dim]."""
        return mean_of(*self._map(images))

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H // patch, W // patch], whose mean is ``forward``."""
        return [map_out(*self._map(images))]

    def _map(self, images) -> tuple:
        """The last map as it is computed, and whether that is [B, H // patch, W // patch, embed_dim]."""
        check_images(images, self.in_chans)
        height, width = images.shape[2:]
        # In an exported program an unknown side is -1 or a symbol.
        known = [side for side in (height, width) if isinstance(side, int) and side != -1]
        if any(side < self.patch_size for side in known):
            raise BadInput(f"images are {height} x {width} pixels, smaller than a patch; give images of at least "
                           f"{self.patch_size} x {self.patch_size} or a smaller patch_size")
        last = self.channels_last or ops.compiled(images)
        x = self.stem(images_in(images, self.channels_last))
        x = permute(x, [0, 2, 3, 1]) if last and not self.channels_last else x
        x = self.stem_norm(x, last)
        for block in self.blocks:
            x = apply_block(block, x, last)
        return x, last
