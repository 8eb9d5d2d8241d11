"""ConvMixer: Patches Are All You Need? (Trockman and Kolter 2022, arXiv:2201.09792).

Official code: https://github.com/locuslab/convmixer (convmixer.py); a second reference is timm's convmixer.py.
The activation comes before every BatchNorm, and only the depth-wise map has a residual. There is no drop path.
Initialisation is PyTorch's default, as in both references. The published 768/32 weights were trained with
ReLU, although the official entry point of that name builds GELU: our variant has ReLU.

Shapes: B images, C = embed_dim; maps are [B, C, H // patch, W // patch], or with the channels last where that
is quicker (``ops.prefers_nhwc``) or ``set_data_format`` chose it.
"""
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.checks import check_act, check_images, check_positive
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.data_format import from_nchw, layout_of, to_nchw
from passl_mixer.layers.recompute import apply_block


class ConvMixerBlock(nn.Layer):
    """``x += BN(act(depthwise(x))); x = BN(act(pointwise(x)))`` (the paper's equations 2 and 3).

    Args:
        width: channels C.
        kernel_size: side of the depth-wise kernel; odd.
        act: activation.
    """

    def __init__(self, width: int, *, kernel_size: int, act: str):
        super().__init__()
        self.depthwise = torch_conv(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm1 = BatchNorm2D(width, pre_act=act)
        self.pointwise = torch_conv(width, width, 1)
        self.norm2 = BatchNorm2D(width, pre_act=act)

    def forward(self, x, data_format: str = "NCHW"):
        """Maps x [B, C, H, W], or [B, H, W, C] with ``data_format`` "NHWC", mixed; of their shape."""
        x = self.norm1(self.depthwise(x, data_format), data_format, residual=x)
        return self.norm2(self.pointwise(x, data_format), data_format)


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
        BadInput: an option out of range, or an image smaller than a patch.
    Source: Trockman and Kolter 2022, arXiv:2201.09792, section 2 and table 1.
    """

    img_size = None
    data_formats, data_format = ("NCHW", "NHWC"), "NCHW"       # of the maps inside; see layers/data_format.py

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
        self.stem_norm = BatchNorm2D(embed_dim, pre_act=act)
        self.blocks = nn.LayerList([ConvMixerBlock(embed_dim, kernel_size=kernel_size, act=act)
                                    for _ in range(num_blocks)])

    def forward(self, images):
        """Mean over the positions of the last map, [B, embed_dim]."""
        return ops.spatial_mean(*self._map(images))

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H // patch, W // patch], whose mean is ``forward``."""
        return [to_nchw(*self._map(images))]

    def _map(self, images) -> tuple:
        """The last map as it is computed, and its layout."""
        check_images(images, self.in_chans)
        height, width = images.shape[2:]
        # In an exported program an unknown side is -1 or a symbol.
        known = [side for side in (height, width) if isinstance(side, int) and side != -1]
        if any(side < self.patch_size for side in known):
            raise BadInput(f"images are {height} x {width} pixels, smaller than a patch; give images of at least "
                           f"{self.patch_size} x {self.patch_size} or a smaller patch_size")
        data_format = "NHWC" if ops.prefers_nhwc(images) else self.data_format
        own = layout_of(self, images)
        x = self.stem(from_nchw(images, own), own)
        x = from_nchw(x, data_format) if data_format != own else x
        x = self.stem_norm(x, data_format)
        for block in self.blocks:
            x = apply_block(block, x, data_format)
        return x, data_format
