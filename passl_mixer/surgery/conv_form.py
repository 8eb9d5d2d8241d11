"""MLP-Mixer and ResMLP as convolutions only, for compilers and accelerators that support nothing else.

- Patch projection: a convolution whose kernel and stride are the patch; it is one already.
- Token mixing: a depth-wise convolution with kernels as large as the grid, one per output unit, shared by all channels.
  Channels are folded into the batch, so that one convolution with one input channel does it and no weight is stored
  twice.
- Channel mixing: 1 x 1 convolutions. ResMLP's affine maps and layer scales: 1 x 1 depth-wise convolutions.

docs/hidden_convolution.md shows the equivalences one by one. Weights are copied; drop path is left out.

Shapes: B images, C channels on a grid of H x W patches, S = H * W.
Source: Tolstikhin et al. 2021, arXiv:2105.01601, section 2, which calls the Mixer a special convolutional network.
"""
import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import ChannelNorm
from passl_mixer.layers.checks import check_images


def conv_of(weight, bias, *, groups: int = 1, stride: int = 1) -> nn.Conv2D:
    """Convolution without padding, with copies of the weights.

    Args:
        weight: [out, in / groups, h, w].
        bias: [out] or None.
        groups: groups of channels.
        stride: of both axes.
    """
    out_chans, in_chans, height, width = weight.shape
    conv = nn.Conv2D(in_chans * groups, out_chans, (height, width), stride=stride, groups=groups,
                     bias_attr=None if bias is not None else False)
    conv.weight.set_value(weight)
    if bias is not None:
        conv.bias.set_value(bias)
    return conv


def pointwise(linear) -> nn.Conv2D:
    """1 x 1 convolution of a linear map over channels; its weight [in, out] becomes [out, in, 1, 1]."""
    return conv_of(linear.weight.t().unsqueeze([2, 3]), linear.bias)


def per_channel(scale, shift=None) -> nn.Conv2D:
    """1 x 1 depth-wise convolution ``scale * x + shift``; scale [C], shift [C] or None."""
    return conv_of(scale.reshape([-1, 1, 1, 1]), shift, groups=scale.shape[0])


def channel_norm(norm) -> ChannelNorm:
    """LayerNorm over the channels of [B, C, H, W], with the weights of a LayerNorm over [B, S, C]."""
    result = ChannelNorm(norm.weight.shape[0], epsilon=norm.epsilon)
    result.set_state_dict(norm.state_dict())
    return result


class TokenConv(nn.Layer):
    """Token mixing of [B, C, H, W] by convolutions of every channel with the same kernels.

    Args:
        grid: (H, W).
        first: token linear map before the activation, weight [out, S].
        second: token linear map after it, weight [S, out]; None: out = S, and no activation.
        act: name of the activation.
    """

    def __init__(self, grid, first, second=None, act: str = "gelu"):
        super().__init__()
        self.grid, self.act = grid, act
        self.first = conv_of(first.weight.reshape([-1, 1, *grid]), first.bias)
        self.second = None if second is None else conv_of(second.weight.unsqueeze([2, 3]), second.bias)

    def forward(self, x_bchw):
        channels = x_bchw.shape[1]
        y = self.first(x_bchw.reshape([-1, 1, *self.grid]))                  # [B * C, out, 1, 1]
        if self.second is not None:
            y = self.second(ops.activate(y, self.act))                           # [B * C, S, 1, 1]
        return y.reshape([-1, channels, *self.grid])


class ConvBlock(nn.Layer):
    """``x += token_mixing(norm1(x)); x += channel_mixing(norm2(x))`` on [B, C, H, W].

    Args:
        norm1, token_mixing, norm2, channel_mixing: layers from [B, C, H, W] to the same.
    """

    def __init__(self, norm1, token_mixing, norm2, channel_mixing):
        super().__init__()
        self.norm1, self.token_mixing = norm1, token_mixing
        self.norm2, self.channel_mixing = norm2, channel_mixing

    def forward(self, x_bchw):
        x_bchw = x_bchw + self.token_mixing(self.norm1(x_bchw))
        return x_bchw + self.channel_mixing(self.norm2(x_bchw))


class PointwiseMlp(nn.Layer):
    """Channel MLP of [B, C, H, W] by two 1 x 1 convolutions."""

    def __init__(self, mlp):
        super().__init__()
        self.act = mlp.act
        self.fc1, self.fc2 = pointwise(mlp.fc1), pointwise(mlp.fc2)

    def forward(self, x_bchw):
        return self.fc2(ops.activate(self.fc1(x_bchw), self.act))


def _mixer_block(block, grid) -> ConvBlock:
    tokens = TokenConv(grid, block.token_mlp.fc1, block.token_mlp.fc2, block.token_mlp.act)
    return ConvBlock(channel_norm(block.norm1), tokens, channel_norm(block.norm2), PointwiseMlp(block.channel_mlp))


def _resmlp_block(block, grid) -> ConvBlock:
    tokens = nn.Sequential(TokenConv(grid, block.token_mixing), per_channel(block.gamma_1))
    channels = nn.Sequential(PointwiseMlp(block.mlp), per_channel(block.gamma_2))
    return ConvBlock(_affine(block.norm1), tokens, _affine(block.norm2), channels)


def _affine(affine) -> nn.Conv2D:
    return per_channel(affine.alpha, affine.beta)


# class of the backbone: (its block, its last norm) as convolutions
FORMS = {"MlpMixer": (_mixer_block, channel_norm), "ResMLP": (_resmlp_block, _affine)}


class ConvForm(nn.Layer):
    """The network of ``to_conv``, with the interface of the given backbone."""

    def __init__(self, backbone):
        super().__init__()
        block_form, norm_form = FORMS[type(backbone).__name__]
        self.img_size, self.grid, self.in_chans = backbone.img_size, backbone.grid, backbone.in_chans
        self.num_features, self.feature_strides = backbone.num_features, backbone.feature_strides
        self.feature_channels = backbone.feature_channels
        self.stem = conv_of(backbone.stem.weight, backbone.stem.bias, stride=self.feature_strides[0])
        self.blocks = nn.LayerList([block_form(block, self.grid) for block in backbone.blocks])
        self.norm = norm_form(backbone.norm)

    def feature_maps(self, images) -> list:
        """One map [B, C, H, W], as of the given backbone."""
        check_images(images, self.in_chans, self.img_size)
        x_bchw = self.stem(images)
        for block in self.blocks:
            x_bchw = block(x_bchw)
        return [self.norm(x_bchw)]

    def forward(self, images):
        """Mean over the positions, [B, num_features]."""
        return self.feature_maps(images)[0].mean(axis=[2, 3])


def to_conv(backbone) -> ConvForm:
    """Rewrite a backbone as convolutions, norms and activations.

    Args:
        backbone: a MlpMixer or ResMLP; left as it is.
    Returns:
        A backbone in evaluation mode with the same outputs (to rounding) and copies of the parameters.
    Raises:
        BadInput: another family.
    """
    name = type(backbone).__name__
    if name not in FORMS:
        raise BadInput(f"no convolution form of a {name}; there is one for {', '.join(FORMS)}")
    with paddle.no_grad():
        network = ConvForm(backbone)
    network.eval()
    return network
