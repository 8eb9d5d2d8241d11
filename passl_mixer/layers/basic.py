"""What two or more backbone families use: linear maps, GELU, LayerNorm, channel MLP, drop path.

Every backbone sends its linear maps, activations and LayerNorms through ``linear``, ``token_linear``,
``activate`` and ``layer_norm`` below, so a faster operator for one device is put in one place.

Shapes: B images, H x W pixels, S tokens, C channels; the suffix of a tensor's name is its layout (``x_bhwc``).
"""
import inspect
import math
from typing import Callable, Optional, Tuple

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.layers.checks import check_act, check_images
from passl_mixer.layers.recompute import apply_block
from passl_mixer.ops import axes_ops, gpu_ops, product_ops, program_ops
from passl_mixer.ops import cpu as ops
from passl_mixer.ops.twice import flatten, gelu


def linear(x, weight, bias=None, act: Optional[str] = None):
    """``x @ weight + bias`` over the last axis, then ``act``, where named; weight [in, out], bias [out] or None."""
    if act in ops.GELUS and bias is not None and ops.compiled(x):
        return product_ops.linear_gelu(x, weight, bias, act)
    # Paddle's predictor joins a product with its GELU, and runs it on oneDNN, with three dimensions but not with four.
    is_map = x.ndim == 4 and program_ops.in_cpu_program()
    rows = x.flatten(1, 2) if is_map else x
    if bias is not None and ops.usable(x):
        y = product_ops.linear(rows, weight, bias)
    elif bias is not None and gpu_ops.on_gpu(x):
        y = gpu_ops.fused_linear()(rows, weight, bias)
    elif ops.usable(x) and x.ndim > 2:      # of more axes, Paddle 2.6 gives second derivatives of another shape
        y = F.linear(x.reshape([-1, x.shape[-1]]), weight).reshape([*x.shape[:-1], weight.shape[1]])
    else:
        y = F.linear(rows, weight, bias)
    y = activate(y, act)
    return y.reshape([-1, *x.shape[1:3], weight.shape[1]]) if is_map else y


def layer_norm(x, weight, bias, epsilon: float):
    """Normalise the last axis to mean 0 and variance 1, then scale and shift."""
    if ops.usable(x):
        return ops.layer_norm(x, weight, bias, epsilon)
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def permute(x, axes):
    """``x.transpose(axes)``; on the CPU copied at once, by a compiled pass."""
    return axes_ops.permute(x, axes) if ops.compiled(x) else x.transpose(axes)


def token_linear(x_bsc, weight, bias):
    """``weight @ x + bias`` over the token axis; weight [out, S], bias [out]; returns [B, out, C]."""
    if ops.usable(x_bsc):
        return product_ops.token_linear(x_bsc, weight, bias)
    y_boc = paddle.matmul(weight, x_bsc)
    return y_boc + bias.unsqueeze(-1).astype(y_boc.dtype)  # autocast lowers the product


def activate(x, act: Optional[str]):
    """The activation named "gelu" (erf), "gelu_tanh", "quick_gelu" (its approximations) or "relu" of x; None: x."""
    if act is None:
        return x
    if act == "relu":
        return F.relu(x)
    if act == "quick_gelu":  # openai/CLIP model.py
        return x * F.sigmoid(1.702 * x)
    if ops.compiled(x):
        return ops.gelu(x, act)
    return gelu(x, act)


def attr(init: Optional[Callable]):
    """Parameter attribute of an initializer; None keeps Paddle's default."""
    return None if init is None else paddle.ParamAttr(initializer=init)


def torch_uniform(fan_in: int) -> nn.initializer.Initializer:
    """PyTorch's default for convolution weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.initializer.Uniform(-bound, bound)


def scaled_truncated_normal(std: float) -> nn.initializer.Initializer:
    """Normal cut at two of its deviations, with deviation ``std`` after the cut (which leaves 0.8796)."""
    wide = std / 0.87962566103423978
    # Paddle 2.6 cuts at two deviations without being told; 3.x takes absolute limits.
    takes_limits = "a" in inspect.signature(nn.initializer.TruncatedNormal.__init__).parameters
    limits = {"a": -2 * wide, "b": 2 * wide} if takes_limits else {}
    return nn.initializer.TruncatedNormal(std=wide, **limits)


class Linear(nn.Linear):
    """``nn.Linear`` computed by ``linear`` above; weight [in, out].

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether a bias is added.
        init: initializer of the weight; truncated normal with standard deviation 0.02 by default.
        bias_init: initializer of the bias; zeros by default.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init=None, bias_init=None):
        init = init or nn.initializer.TruncatedNormal(std=0.02)
        super().__init__(in_features, out_features, weight_attr=attr(init),
                         bias_attr=attr(bias_init or nn.initializer.Constant(0.0)) if bias else False)

    def forward(self, x, act: Optional[str] = None):
        """The linear map of ``x``, and the activation ``act`` of that where one is named (one pass on the CPU)."""
        return linear(x, self.weight, self.bias, act)


class TokenLinear(nn.Layer):
    """Linear map over the token axis of [B, S, C]; weight [out, S], so that no transpose is needed.

    Args:
        in_tokens: number of tokens S.
        out_tokens: number of tokens it returns.
        init: initializer of the weight; truncated normal with standard deviation 0.02 by default.
        bias_init: initializer of the bias; zeros by default.
    """

    def __init__(self, in_tokens: int, out_tokens: int, *, init=None, bias_init=None):
        super().__init__()
        init = init or nn.initializer.TruncatedNormal(std=0.02)
        self.weight = self.create_parameter([out_tokens, in_tokens], attr=attr(init))
        self.bias = self.create_parameter([out_tokens], attr=attr(bias_init), is_bias=True)

    def forward(self, x_bsc, act: Optional[str] = None):
        """As ``Linear.forward``, over the tokens."""
        if act in ops.GELUS and ops.compiled(x_bsc):
            return product_ops.token_linear_gelu(x_bsc, self.weight, self.bias, act)
        y_boc = token_linear(x_bsc, self.weight, self.bias)
        return activate(y_boc, act)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the last axis, computed by ``layer_norm`` above."""

    def __init__(self, num_channels: int, epsilon: float = 1e-5):
        super().__init__(num_channels, epsilon=epsilon)
        self.epsilon = epsilon

    def forward(self, x):
        return layer_norm(x, self.weight, self.bias, self.epsilon)


class ChannelNorm(LayerNorm):
    """``LayerNorm`` over the channels of [B, C, H, W], at every position."""

    def forward(self, x_bchw):
        return permute(LayerNorm.forward(self, permute(x_bchw, [0, 2, 3, 1])), [0, 3, 1, 2])


class Mlp(nn.Layer):
    """Linear, activation, linear over the last axis: the channel-mixing MLP of every family."""

    def __init__(self, width: int, hidden: int, *, act: str = "gelu", init=None, bias_init=None):
        super().__init__()
        self.act = check_act(act)
        self.fc1 = Linear(width, hidden, init=init, bias_init=bias_init)
        self.fc2 = Linear(hidden, width, init=init, bias_init=bias_init)

    def forward(self, x):
        if x.ndim == 4 and program_ops.in_cpu_program():        # as ``linear`` does, once for both
            y = self.fc2(self.fc1(x.flatten(1, 2), self.act))
            return y.reshape([-1, *x.shape[1:3], y.shape[-1]])
        return self.fc2(self.fc1(x, self.act))


class DropPath(nn.Layer):
    """Stochastic depth: in training, zero a branch for a random part of the images and rescale the rest.

    Args:
        rate: probability that an image loses the branch, in [0, 1).
    Source: Huang et al. 2016, arXiv:1603.09382; rescaled by 1 / (1 - rate) as in timm, so
        that evaluation needs no factor.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise BadInput(f"drop_path_rate is {rate}, expected a number in [0, 1)")
        self.rate = float(rate)

    def keeps_all(self) -> bool:
        """Whether ``forward`` returns what it is given."""
        return not self.training or self.rate == 0.0

    def forward(self, x):
        if self.keeps_all():
            return x
        keep = 1.0 - self.rate
        kept = paddle.floor(paddle.rand([x.shape[0]] + [1] * (x.ndim - 1)) + keep)
        return x * (kept / keep).astype(x.dtype)


def linear_rates(rate: float, count: int) -> list:
    """``count`` drop-path rates rising linearly from 0 to ``rate``."""
    return [rate * i / max(count - 1, 1) for i in range(count)]


def mixed_tokens(backbone, images):
    """Tokens of a network of one resolution (Mixer, ResMLP, gMLP): its stem, blocks and final norm.

    Args:
        backbone: has ``stem``, ``blocks``, ``norm``, ``in_chans`` and ``img_size``.
        images: [B, in_chans, H, W].
    Returns:
        [B, S, C], row-major over the patches.
    """
    check_images(images, backbone.in_chans, backbone.img_size)
    x_bsc = permute(flatten(backbone.stem(images), 2, 3), [0, 2, 1])
    for block in backbone.blocks:
        x_bsc = apply_block(block, x_bsc)
    return backbone.norm(x_bsc)


def token_map(tokens_bsc, grid: Tuple[int, int]):
    """Tokens [B, S, C] in row-major order as a map [B, C, h, w] over their ``grid`` (h, w)."""
    return permute(tokens_bsc, [0, 2, 1]).reshape([-1, tokens_bsc.shape[2], *grid])
