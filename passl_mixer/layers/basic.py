"""Layers that two or more families use: linear maps, LayerNorm, channel MLP, drop path, tokens.

Shapes: B images, H x W pixels, S tokens, C channels; the suffix of a tensor's name is its layout (``x_bhwc``).
"""
from typing import Optional, Tuple

import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.checks import check_act, check_images
from passl_mixer.layers.initialisers import attr
from passl_mixer.layers.recompute import apply_block


class Linear(nn.Linear):
    """``nn.Linear`` computed by ``ops.linear``; weight [in, out].

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether a bias is added.
        init: initialiser of the weight; truncated normal with standard deviation 0.02 by default.
        bias_init: initialiser of the bias; zeros by default.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init=None, bias_init=None):
        init = init or nn.initializer.TruncatedNormal(std=0.02)
        super().__init__(in_features, out_features, weight_attr=attr(init),
                         bias_attr=attr(bias_init or nn.initializer.Constant(0.0)) if bias else False)

    def forward(self, x, act: Optional[str] = None):
        """The linear map of x [..., in], then the activation ``act`` where one is named; [..., out]."""
        return ops.linear(x, self.weight, self.bias, act)


class TokenLinear(nn.Layer):
    """Linear map over the token axis of [B, S, C], computed by ``ops.token_linear``; weight [out, S].

    Args:
        in_tokens: number of tokens S.
        out_tokens: number of tokens it returns.
        init: initialiser of the weight; truncated normal with standard deviation 0.02 by default.
        bias_init: initialiser of the bias; zeros by default.
    """

    def __init__(self, in_tokens: int, out_tokens: int, *, init=None, bias_init=None):
        super().__init__()
        init = init or nn.initializer.TruncatedNormal(std=0.02)
        self.weight = self.create_parameter([out_tokens, in_tokens], attr=attr(init))
        self.bias = self.create_parameter([out_tokens], attr=attr(bias_init), is_bias=True)

    def forward(self, x_bsc, act: Optional[str] = None):
        """The linear map over the tokens of x_bsc [B, S, C], then ``act`` where one is named; [B, out, C]."""
        return ops.token_linear(x_bsc, self.weight, self.bias, act)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the last axis, computed by ``ops.layer_norm``.

    Args:
        num_channels: length C of the last axis.
        epsilon: added to the variance.
    """

    def __init__(self, num_channels: int, epsilon: float = 1e-5):
        super().__init__(num_channels, epsilon=epsilon)
        self.epsilon = epsilon

    def forward(self, x):
        """X [..., C] normalised, of its shape."""
        return ops.layer_norm(x, self.weight, self.bias, self.epsilon)


class ChannelNorm(LayerNorm):
    """``LayerNorm`` over the channels of [B, C, H, W], at every position."""

    def forward(self, x_bchw):
        """Maps [B, C, H, W] normalised, of their shape."""
        return ops.permute(LayerNorm.forward(self, ops.permute(x_bchw, [0, 2, 3, 1])), [0, 3, 1, 2])


def two_layers(layer, x, act: str):
    """The MLP of a layer's ``fc1`` and ``fc2``, as one operator.

    Args:
        layer: has linear maps ``fc1`` and ``fc2`` with biases; ``surgery/macs.py`` knows its class.
        x: [..., C].
        act: activation between them.
    """
    return ops.mlp(x, layer.fc1.weight, layer.fc1.bias, layer.fc2.weight, layer.fc2.bias, act)


class Mlp(nn.Layer):
    """Linear, activation, linear over the last axis: the channel-mixing MLP of every family.

    Args:
        width: channels C in and out.
        hidden: channels between the linear maps.
        act: activation.
        init, bias_init: initialisers as of ``Linear``.
    """

    def __init__(self, width: int, hidden: int, *, act: str = "gelu", init=None, bias_init=None):
        super().__init__()
        self.act = check_act(act)
        self.fc1 = Linear(width, hidden, init=init, bias_init=bias_init)
        self.fc2 = Linear(hidden, width, init=init, bias_init=bias_init)

    def forward(self, x):
        """X [B, ..., C] to the same shape; maps go through both linear maps as rows, which programs are quicker at."""
        rows = ops.flatten(x, 1, 2) if x.ndim == 4 else x
        y = two_layers(self, rows, self.act)
        return y.reshape([-1, *x.shape[1:]]) if x.ndim == 4 else y


class DropPath(nn.Layer):
    """Stochastic depth: in training, zero a branch for a random part of the images and rescale the rest.

    Args:
        rate: probability that an image loses the branch, in [0, 1).
    Raises:
        BadInput: another rate.
    Source: Huang et al. 2016, arXiv:1603.09382; rescaled by 1 / (1 - rate) as in timm, so
        that evaluation needs no factor.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise BadInput(f"drop_path_rate is {rate}, expected a number in [0, 1)")
        self.rate = float(rate)

    def keeps_all(self) -> bool:
        """Whether ``forward`` returns its input."""
        return not self.training or self.rate == 0.0

    def forward(self, x):
        """X [B, ...] with the branches of some images zeroed, of its shape."""
        if self.keeps_all():
            return x
        keep = 1.0 - self.rate
        kept = paddle.floor(paddle.rand([x.shape[0]] + [1] * (x.ndim - 1)) + keep)
        return x * (kept / keep).astype(x.dtype)


def linear_rates(rate: float, count: int) -> list:
    """``count`` drop-path rates rising linearly from 0 to ``rate``."""
    return [rate * i / max(count - 1, 1) for i in range(count)]


def maps_nhwc(layer, images):
    """The maps of a stem as [B, h, w, C], with as little transposed as can be.

    Args:
        layer: a layer on maps [B, C, H, W]; a convolution may get the images the other way round.
        images: [B, C, H, W].
    """
    if isinstance(layer, nn.Conv2D) and ops.computes_in_bf16(images):
        return layer(ops.permute(images, [0, 2, 3, 1]), "NHWC")
    return ops.permute(layer(images), [0, 2, 3, 1])


def mixed_tokens(backbone, images):
    """Tokens of a network of one resolution (Mixer, ResMLP, gMLP): its stem, blocks and final norm.

    Args:
        backbone: has ``stem``, ``blocks``, ``norm``, ``in_chans`` and ``img_size``.
        images: [B, in_chans, H, W].
    Returns:
        [B, S, C], row-major over the patches.
    Raises:
        BadInput: if ``images`` has another shape.
    """
    check_images(images, backbone.in_chans, backbone.img_size)
    x_bsc = ops.flatten(maps_nhwc(backbone.stem, images), 1, 2)
    for block in backbone.blocks:
        x_bsc = apply_block(block, x_bsc)
    return backbone.norm(x_bsc)


def token_map(tokens_bsc, grid: Tuple[int, int]):
    """Tokens [B, S, C] in row-major order as a map [B, C, h, w] over their ``grid`` (h, w)."""
    return ops.permute(tokens_bsc, [0, 2, 1]).reshape([-1, tokens_bsc.shape[2], *grid])
