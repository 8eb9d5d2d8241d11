"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al. 2020, arXiv:2010.11929), the DeiT layout.

The comparison backbone with global attention. Reference code: https://github.com/huggingface/pytorch-image-models
(timm/models/vision_transformer.py), used unchanged by https://github.com/facebookresearch/deit (Touvron et al.
2020, arXiv:2012.12877), whose "tiny" and "small" sizes these are. Initialisation is DeiT's: truncated normal 0.02
for linear maps, position embedding and class token (timm today: N(0, 1e-6) for the token), zero biases, PyTorch's
default for the patch projection. No dropout. As in DeiT, position embedding and class token are
not decayed (``optim.py``).

CLIP's image tower (Radford et al. 2021, arXiv:2103.00020; openai/CLIP ``model.py``) is this network with a norm before
the first block, no bias in the patch projection and QuickGELU. It differs there from the official one in its initial
weights, which are DeiT's, and in the norms' epsilon, 1e-6 where CLIP has 1e-5.

Shapes: B images, S = (H / patch) * (W / patch) patches in row-major order, N = S + 1 tokens, C = embed_dim.
"""
from typing import Sequence, Union

import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput, nearest
from passl_mixer.layers.attention import SelfAttention, check_block
from passl_mixer.layers.basic import DropPath, LayerNorm, Mlp, linear_rates, maps_nhwc, token_map
from passl_mixer.layers.checks import check_images, check_positive, image_pair, patch_grid
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.initialisers import attr
from passl_mixer.layers.recompute import apply_block

POOLS = ("token", "mean")


class VitBlock(nn.Layer):
    """``x += attention(LN(x)); x += mlp(LN(x))`` (equations 2 and 3 of the paper); [B, N, C] to the same.

    Args:
        width: channels C.
        num_heads: attention heads; divides ``width``.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        drop_path: rate of stochastic depth, in [0, 1).
        act: activation of the MLP.
    """

    def __init__(self, width: int, *, num_heads: int, mlp_ratio: float, drop_path: float, act: str = "gelu"):
        super().__init__()
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.attention = SelfAttention(width, num_heads)
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), act=act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bnc):
        """Tokens [B, N, C] to the same shape."""
        x_bnc = x_bnc + self.drop_path(self.attention(self.norm1(x_bnc)))
        return x_bnc + self.drop_path(self.mlp(self.norm2(x_bnc)))


class ViT(nn.Layer):
    """Vision Transformer without a classifier; bound to the image size it was built for.

    Args:
        img_size: height and width in pixels, one integer or a pair; multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        embed_dim: width C of every token; a multiple of ``num_heads``.
        num_blocks: number of blocks.
        num_heads: attention heads; 64 channels each in the published networks.
        mlp_ratio: hidden width of the MLPs as a multiple of ``embed_dim``.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0, in [0, 1); DeiT uses 0.1.
        act: "gelu", or "quick_gelu" as in CLIP ("gelu_tanh", "relu").
        pre_norm: a LayerNorm before the first block, as in CLIP.
        stem_bias: whether the patch projection has a bias; CLIP's has none.
        pool: "token" is the class token, "mean" the mean of the patch tokens, both after the final norm.
    Raises:
        BadInput: the options do not fit each other.
    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1; sizes: arXiv:2012.12877, table 1.
    """

    def __init__(self, *, img_size: Union[int, Sequence[int]] = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 384, num_blocks: int = 12, num_heads: int = 6, mlp_ratio: float = 4.0,
                 drop_path_rate: float = 0.0, pool: str = "token", act: str = "gelu", pre_norm: bool = False,
                 stem_bias: bool = True):
        super().__init__()
        self.img_size = image_pair(img_size)
        check_positive(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, num_blocks=num_blocks,
                       num_heads=num_heads, mlp_ratio=mlp_ratio)
        check_block(embed_dim, num_heads, mlp_ratio)
        if pool not in POOLS:
            raise BadInput(f"unknown pool {pool!r}{nearest(pool, POOLS)}")
        self.grid = patch_grid(self.img_size, patch_size)
        self.in_chans, self.num_features, self.pool = in_chans, embed_dim, pool
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.stem = torch_conv(in_chans, embed_dim, patch_size, stride=patch_size, bias=stem_bias)
        small = attr(nn.initializer.TruncatedNormal(std=0.02))
        self.class_token = self.create_parameter([1, 1, embed_dim], attr=small)
        self.position = self.create_parameter([1, 1 + self.grid[0] * self.grid[1], embed_dim], attr=small)
        self.pre_norm = LayerNorm(embed_dim, epsilon=1e-6) if pre_norm else None
        self.blocks = nn.LayerList([
            VitBlock(embed_dim, num_heads=num_heads, mlp_ratio=mlp_ratio, drop_path=rate, act=act)
            for rate in linear_rates(drop_path_rate, num_blocks)])
        self.norm = LayerNorm(embed_dim, epsilon=1e-6)

    def tokens(self, images):
        """Normalised tokens of the last block, class token first, [B, 1 + S, C], from [B, in_chans, H, W]."""
        check_images(images, self.in_chans, self.img_size)
        patches_bsc = ops.flatten(maps_nhwc(self.stem, images), 1, 2)
        # A row of zeros in front makes room for the class token: one sum adds it and the positions to every image.
        x_bnc = ops.pad_axis(patches_bsc, 1, 1, 0)
        added = paddle.concat([self.class_token + self.position[:, :1], self.position[:, 1:]], axis=1)
        x_bnc = x_bnc + added.astype(x_bnc.dtype)
        x_bnc = x_bnc if self.pre_norm is None else self.pre_norm(x_bnc)
        for block in self.blocks:
            x_bnc = apply_block(block, x_bnc)
        return self.norm(x_bnc)

    def forward(self, images):
        """Class token, or mean of the patch tokens, after the final norm; [B, embed_dim]."""
        tokens_bnc = self.tokens(images)
        return tokens_bnc[:, 0] if self.pool == "token" else tokens_bnc[:, 1:].mean(axis=1)

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H / patch, W / patch]: the normalised patch tokens, without the class token."""
        return [token_map(self.tokens(images)[:, 1:], self.grid)]
