"""MLP-Mixer: An all-MLP Architecture for Vision (Tolstikhin et al. 2021, arXiv:2105.01601).

Official code: https://github.com/google-research/vision_transformer (vit_jax/models_mixer.py); a second
reference is timm's mlp_mixer.py. Choices where the two differ:
- act: "gelu" (erf) is timm's, "gelu_tanh" is Google's flax default.
- drop path rises linearly from 0 to ``drop_path_rate`` over the blocks, the paper's appendix B (timm:
  constant); both residuals of a block share the rate and draw separate masks; kept branches are rescaled
  (timm; big_vision does not).
- initialisation is timm's: Xavier-uniform linear maps, N(0, 1e-6) biases, truncated LeCun-normal stem.

Shapes: B images, S = (H / patch) * (W / patch) tokens in row-major order, C = embed_dim.
"""
import math
from typing import Optional, Sequence, Union

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import (
    DropPath,
    LayerNorm,
    Mlp,
    TokenLinear,
    linear_rates,
    mixed_tokens,
    token_map,
)
from passl_mixer.layers.checks import check_act, check_positive, image_pair, patch_grid
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.initialisers import attr, scaled_truncated_normal


class TokenMlp(nn.Layer):
    """Linear, activation, linear over the token axis; [B, S, C] to the same.

    Args:
        num_tokens: number of tokens S.
        hidden: hidden width.
        act: activation.
    """

    def __init__(self, num_tokens: int, hidden: int, *, act: str):
        super().__init__()
        self.act = check_act(act)
        xavier, tiny = nn.initializer.XavierUniform(), nn.initializer.Normal(0.0, 1e-6)
        self.fc1 = TokenLinear(num_tokens, hidden, init=xavier, bias_init=tiny)
        self.fc2 = TokenLinear(hidden, num_tokens, init=xavier, bias_init=tiny)

    def forward(self, x_bsc):
        """Tokens [B, S, C] to the same shape."""
        return ops.token_mlp(x_bsc, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias, self.act)


class MixerBlock(nn.Layer):
    """``x += token_mlp(LN(x)); x += channel_mlp(LN(x))`` (the paper's equation 1); [B, S, C] to the same.

    Args:
        num_tokens: number of tokens S.
        width: channels C.
        token_hidden: hidden width of the token MLP.
        channel_hidden: hidden width of the channel MLP.
        act: activation of both.
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, num_tokens: int, width: int, *, token_hidden: int, channel_hidden: int, act: str,
                 drop_path: float):
        super().__init__()
        self.norm1 = LayerNorm(width, epsilon=1e-6)
        self.token_mlp = TokenMlp(num_tokens, token_hidden, act=act)
        self.norm2 = LayerNorm(width, epsilon=1e-6)
        self.channel_mlp = Mlp(width, channel_hidden, act=act, init=nn.initializer.XavierUniform(),
                               bias_init=nn.initializer.Normal(0.0, 1e-6))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bsc):
        """Tokens [B, S, C] to the same shape."""
        x_bsc = x_bsc + self.drop_path(self.token_mlp(self.norm1(x_bsc)))
        return x_bsc + self.drop_path(self.channel_mlp(self.norm2(x_bsc)))


class MlpMixer(nn.Layer):
    """MLP-Mixer without a classifier; bound to the image size it was built for.

    Args:
        img_size: height and width in pixels, one integer or a pair; multiples of ``patch_size``.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        embed_dim: width C of every token.
        num_blocks: number of Mixer blocks.
        mlp_ratio: hidden widths of the token and of the channel MLP, both as a multiple of ``embed_dim``.
        drop_path_rate: stochastic-depth rate of the last block, in [0, 1); the paper uses 0.1 on ImageNet.
        act: "gelu" or "gelu_tanh".
        token_hidden: hidden width of the token MLP, in place of the first of ``mlp_ratio``; needed for a network that
            ``passl_mixer.resize_tokens`` resized in blocks.
    Raises:
        BadInput: the sizes do not fit each other.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601, section 2 and table 1.
    """

    def __init__(self, *, img_size: Union[int, Sequence[int]] = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 512, num_blocks: int = 8, mlp_ratio: Sequence[float] = (0.5, 4.0),
                 drop_path_rate: float = 0.0, act: str = "gelu", token_hidden: Optional[int] = None):
        super().__init__()
        self.img_size = image_pair(img_size)
        check_positive(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, num_blocks=num_blocks,
                       mlp_ratio=mlp_ratio, token_hidden=1 if token_hidden is None else token_hidden)
        if len(mlp_ratio) != 2:
            raise BadInput(f"mlp_ratio is {list(mlp_ratio)}, expected a pair [token, channel]: [0.5, 4.0]")
        if min(mlp_ratio) * embed_dim < 1:
            raise BadInput(f"mlp_ratio {list(mlp_ratio)} leaves no hidden unit at embed_dim {embed_dim}; "
                           "raise one of them")
        self.in_chans, self.num_features = in_chans, embed_dim
        self.feature_strides, self.feature_channels = (patch_size,), (embed_dim,)
        self.grid = patch_grid(self.img_size, patch_size)
        stem_init = scaled_truncated_normal(1.0 / math.sqrt(in_chans * patch_size ** 2))
        self.stem = Conv2D(in_chans, embed_dim, patch_size, stride=patch_size,
                              weight_attr=attr(stem_init),
                              bias_attr=attr(nn.initializer.Constant(0.0)))
        # The token MLP's hidden width is a fraction of the channels, not of the tokens (the paper's table 1).
        token_hidden = token_hidden or int(mlp_ratio[0] * embed_dim)
        rates = linear_rates(drop_path_rate, num_blocks)
        self.blocks = nn.LayerList([
            MixerBlock(self.grid[0] * self.grid[1], embed_dim, token_hidden=token_hidden,
                       channel_hidden=int(mlp_ratio[1] * embed_dim), act=act, drop_path=rate)
            for rate in rates])
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
