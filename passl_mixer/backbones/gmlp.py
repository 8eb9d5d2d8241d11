"""gMLP: Pay Attention to MLPs (Liu et al. 2021, arXiv:2105.08050), the vision models.

There is no official code; the reference is timm's mlp_mixer.py. Its choices, where the paper leaves one open:
- LayerNorm's epsilon is 1e-6 in blocks and at the end, 1e-5 in the gate.
- drop path has one rate for all blocks (the paper gives one survival probability for each network).
- initialisation: Xavier-uniform linear maps with N(0, 1e-6) biases, truncated LeCun-normal stem; the gate begins
  as the constant 1 (the paper's section 2.1), with N(0, 1e-6) weights and biases of 1.

Shapes: B images, S = (H / patch) * (W / patch) tokens in row-major order, C = embed_dim, E hidden channels.
"""
import math
from typing import Sequence, Union

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import (
    DropPath,
    LayerNorm,
    Linear,
    TokenLinear,
    mixed_tokens,
    token_map,
)
from passl_mixer.layers.checks import check_act, check_positive, image_pair, patch_grid
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.initialisers import attr, scaled_truncated_normal


class SpatialGatingUnit(nn.Layer):
    """``u * token_mixing(LN(v))`` where u, v are the first and the second half of the channels.

    Args:
        num_tokens: number of tokens S.
        width: channels E of the input [B, S, E], even; the output is [B, S, E / 2].
    Source: Liu et al. 2021, arXiv:2105.08050, section 2.1, equation 3.
    """

    def __init__(self, num_tokens: int, width: int):
        super().__init__()
        self.norm = LayerNorm(width // 2, epsilon=1e-5)
        self.token_mixing = TokenLinear(num_tokens, num_tokens, init=nn.initializer.Normal(0.0, 1e-6),
                                        bias_init=nn.initializer.Constant(1.0))

    def forward(self, x_bse):
        """Tokens [B, S, E] to [B, S, E / 2]."""
        u, v = ops.halves(x_bse)
        return ops.multiply(u, self.token_mixing(self.norm(v)))


class GmlpBlock(nn.Layer):
    """``x += fc2(gate(act(fc1(LN(x)))))``, mixing tokens and channels; [B, S, C] to the same.

    Args:
        num_tokens: number of tokens S.
        width: channels C.
        hidden: channels E of the gate; even.
        act: activation before the gate.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, num_tokens: int, width: int, *, hidden: int, act: str, drop_path: float):
        super().__init__()
        self.act = check_act(act)
        xavier, tiny = nn.initializer.XavierUniform(), nn.initializer.Normal(0.0, 1e-6)
        self.norm = LayerNorm(width, epsilon=1e-6)
        self.fc1 = Linear(width, hidden, init=xavier, bias_init=tiny)
        self.gate = SpatialGatingUnit(num_tokens, hidden)
        self.fc2 = Linear(hidden // 2, width, init=xavier, bias_init=tiny)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bsc):
        """Tokens [B, S, C] to the same shape."""
        hidden_bse = self.fc1(self.norm(x_bsc), self.act)
        return x_bsc + self.drop_path(self.fc2(self.gate(hidden_bse)))


class GMLP(nn.Layer):
    """gMLP without a classifier; bound to the image size it was built for.

    Args:
        img_size: height and width in pixels, one integer or a pair; multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        embed_dim: width C of every token.
        num_blocks: number of blocks.
        mlp_ratio: hidden width E before the gate, as a multiple of ``embed_dim``; E must be even, since one half
            of it gates the other.
        drop_path_rate: stochastic-depth rate, the same in every block, in [0, 1); 1 minus the paper's survival
            probability: 0 (ti16), 0.05 (s16), 0.2 (b16) on ImageNet.
        act: "gelu" or "gelu_tanh".
    Raises:
        BadInput: the sizes do not fit each other.
    Source: Liu et al. 2021, arXiv:2105.08050, section 3 and table 1.
    """

    def __init__(self, *, img_size: Union[int, Sequence[int]] = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 256, num_blocks: int = 30, mlp_ratio: float = 6.0,
                 drop_path_rate: float = 0.0, act: str = "gelu"):
        super().__init__()
        self.img_size = image_pair(img_size)
        check_positive(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, num_blocks=num_blocks,
                       mlp_ratio=mlp_ratio)
        hidden = int(mlp_ratio * embed_dim)
        if hidden < 2 or hidden % 2:
            raise BadInput(f"mlp_ratio {mlp_ratio} at embed_dim {embed_dim} gives {hidden} hidden channels, expected "
                           "an even number, at least 2, one half of which gates the other; change one of them")
        self.in_chans, self.num_features = in_chans, embed_dim
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.grid = patch_grid(self.img_size, patch_size)
        stem_init = scaled_truncated_normal(1.0 / math.sqrt(in_chans * patch_size ** 2))
        self.stem = Conv2D(in_chans, embed_dim, patch_size, stride=patch_size, weight_attr=attr(stem_init),
                              bias_attr=attr(nn.initializer.Constant(0.0)))
        self.blocks = nn.LayerList([
            GmlpBlock(self.grid[0] * self.grid[1], embed_dim, hidden=hidden, act=act, drop_path=drop_path_rate)
            for _ in range(num_blocks)])
        self.norm = LayerNorm(embed_dim, epsilon=1e-6)

    def tokens(self, images):
        """Normalised tokens of the last block, [B, S, C], from images [B, in_chans, H, W]."""
        return mixed_tokens(self, images)

    def forward(self, images):
        """Mean of the normalised tokens, [B, embed_dim]."""
        return self.tokens(images).mean(axis=1)

    def feature_maps(self, images) -> list:
        """One map [B, embed_dim, H / patch, W / patch]: the normalised tokens, whose mean is ``forward``."""
        return [token_map(self.tokens(images), self.grid)]
