"""ResMLP: Feedforward networks for image classification (Touvron et al. 2021, arXiv:2105.03404).

Official code: https://github.com/facebookresearch/deit (resmlp_models.py); a second reference is timm's
mlp_mixer.py. Where they and the paper differ, we follow the official code:
- the scale that ends a branch has no bias (the paper's equations 2 and 3 write one);
- initial layer scale is 0.1 for 12 blocks, 1e-5 for 24, 1e-6 for 36 and for the B networks (timm: 1e-4 for 12);
- linear maps are initialised by a truncated normal 0.02 and zero biases, the stem by PyTorch's default for
  convolutions (timm: Xavier-uniform and LeCun-normal).
Kept branches are rescaled by drop path; both residuals of a block draw separate masks.

Shapes: B images, S = (H / patch) * (W / patch) tokens in row-major order, C = embed_dim.
"""
from typing import Sequence, Union

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, Mlp, TokenLinear, mixed_tokens, token_map
from passl_mixer.layers.checks import check_positive, image_pair, patch_grid
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.initialisers import attr


class Affine(nn.Layer):
    """``alpha * x + beta`` per channel, in place of LayerNorm; x [B, S, C], alpha and beta [C]."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = self.create_parameter([width], attr=attr(nn.initializer.Constant(1.0)))
        self.beta = self.create_parameter([width], is_bias=True)

    def forward(self, x_bsc):
        """Tokens [B, S, C] to the same shape."""
        # In float32 under autocast: without statistics nothing else bounds the sum of many blocks.
        return ops.affine(x_bsc.astype(self.alpha.dtype), self.alpha, self.beta)


class ResMlpBlock(nn.Layer):
    """``x += gamma_1 * token_mixing(Aff(x)); x += gamma_2 * mlp(Aff(x))``; [B, S, C] to the same.

    Source: equations 2 and 3 of the paper.

    Args:
        num_tokens: number of tokens S.
        width: channels C.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        act: activation of the MLP.
        layer_scale_init: initial value of ``gamma_1`` and ``gamma_2``.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, num_tokens: int, width: int, *, mlp_ratio: float, act: str, layer_scale_init: float,
                 drop_path: float):
        super().__init__()
        scale = attr(nn.initializer.Constant(layer_scale_init))
        self.norm1 = Affine(width)
        self.token_mixing = TokenLinear(num_tokens, num_tokens)
        self.gamma_1 = self.create_parameter([width], attr=scale)
        self.norm2 = Affine(width)
        self.mlp = Mlp(width, int(mlp_ratio * width), act=act)
        self.gamma_2 = self.create_parameter([width], attr=scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bsc):
        """Tokens [B, S, C] to the same shape."""
        x_bsc = self._add(x_bsc, self.token_mixing(self.norm1(x_bsc)), self.gamma_1)
        return self._add(x_bsc, self.mlp(self.norm2(x_bsc)), self.gamma_2)

    def _add(self, x_bsc, mixed, gamma):
        mixed = mixed.astype(gamma.dtype)
        if self.drop_path.keeps_all():
            return ops.add_scaled(x_bsc, mixed, gamma)
        return x_bsc + self.drop_path(ops.affine(mixed, gamma))


class ResMLP(nn.Layer):
    """ResMLP without a classifier; bound to the image size it was built for.

    Args:
        img_size: height and width in pixels, one integer or a pair; multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        embed_dim: width C of every token.
        num_blocks: number of blocks.
        mlp_ratio: hidden width of the channel MLP, as a multiple of ``embed_dim``.
        drop_path_rate: stochastic-depth rate, the same in every block, in [0, 1); the authors fine-tune with
            0.05 (12 blocks) and 0.1 (24 blocks).
        act: activation of the channel MLP, "gelu" or "gelu_tanh".
        layer_scale_init: initial value of the branches' scales gamma_1 and gamma_2, above 0; smaller for
            deeper networks.
    Raises:
        BadInput: the sizes do not fit each other.
    Source: Touvron et al. 2021, arXiv:2105.03404, section 2 and table 3.
    """

    def __init__(self, *, img_size: Union[int, Sequence[int]] = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 384, num_blocks: int = 12, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0, act: str = "gelu", layer_scale_init: float = 0.1):
        super().__init__()
        self.img_size = image_pair(img_size)
        check_positive(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, num_blocks=num_blocks,
                       mlp_ratio=mlp_ratio, layer_scale_init=layer_scale_init)
        if mlp_ratio * embed_dim < 1:
            raise BadInput(f"mlp_ratio {mlp_ratio} leaves no hidden unit at embed_dim {embed_dim}; raise one of them")
        self.in_chans, self.num_features = in_chans, embed_dim
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.grid = patch_grid(self.img_size, patch_size)
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size)
        self.blocks = nn.LayerList([
            ResMlpBlock(self.grid[0] * self.grid[1], embed_dim, mlp_ratio=mlp_ratio, act=act,
                        layer_scale_init=layer_scale_init, drop_path=drop_path_rate)
            for _ in range(num_blocks)])
        self.norm = Affine(embed_dim)

    def tokens(self, images):
        """Tokens of the last block after the final affine map, [B, S, C], from images [B, in_chans, H, W]."""
        return mixed_tokens(self, images)

    def forward(self, images):
        """Mean of the tokens, [B, embed_dim]."""
        return self.tokens(images).mean(axis=1)

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H / patch, W / patch]: the tokens, whose mean is ``forward``."""
        return [token_map(self.tokens(images), self.grid)]
