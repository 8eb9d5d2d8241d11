"""Small networks in PyTorch, each from its official code, with the names of ``passl_mixer`` and PyTorch's layouts.

MLP-Mixer: timm ``mlp_mixer.py``. ConvMLP: SHI-Labs/Convolutional-MLPs ``src/convmlp.py``. Text transformer:
openai/CLIP ``model.py``. Heads: google-research/simclr ``model_util.py``, facebookresearch/moco, moco-v3 and simsiam
``builder.py``, deepmind-research ``byol/utils/networks.py``.
"""
import torch
from torch import nn


class FeedForward(nn.Module):
    """Linear, GELU, linear over the last axis."""

    def __init__(self, width, hidden, act=nn.functional.gelu):
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(width, hidden), nn.Linear(hidden, width), act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class MixerBlock(nn.Module):
    def __init__(self, tokens, width, token_hidden, channel_hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.token_mlp, self.channel_mlp = FeedForward(tokens, token_hidden), FeedForward(width, channel_hidden)

    def forward(self, x):
        x = x + self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mlp(self.norm2(x))


class MlpMixer(nn.Module):
    def __init__(self, *, img_size, patch_size, embed_dim, num_blocks, mlp_ratio):
        super().__init__()
        tokens, (token, channel) = (img_size // patch_size) ** 2, (int(ratio * embed_dim) for ratio in mlp_ratio)
        self.num_features = embed_dim
        self.stem = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.blocks = nn.Sequential(*[MixerBlock(tokens, embed_dim, token, channel) for _ in range(num_blocks)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

    def forward(self, images):
        return self.norm(self.blocks(self.stem(images).flatten(2).transpose(1, 2))).mean(1)


def conv_bn_relu(*chans_kernel_stride):
    layers = []
    for inputs, outputs, kernel, stride in chans_kernel_stride:
        layers += [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs),
                   nn.ReLU()]
    return nn.Sequential(*layers)


class ConvMlpBlock(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.connect_norm, self.norm2 = (nn.LayerNorm(width) for _ in range(3))
        self.channel_mlp1, self.channel_mlp2 = FeedForward(width, hidden), FeedForward(width, hidden)
        self.connect = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)

    def forward(self, x):                               # [B, H, W, C]
        x = x + self.channel_mlp1(self.norm1(x))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.channel_mlp2(self.norm2(x))


class ConvMlpStage(nn.Module):
    def __init__(self, width, after, depth, hidden):
        super().__init__()
        self.blocks = nn.Sequential(*[ConvMlpBlock(width, hidden) for _ in range(depth)])
        self.downsample = nn.Conv2d(width, after, 3, 2, 1) if after else None

    def forward(self, x):
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvMLP(nn.Module):
    """With the tokenizer's stride of 2 and no max-pool (``stem_stride: 2``), for small images."""

    def __init__(self, *, stem_channels, num_conv_blocks, embed_dims, depths, mlp_ratios, stem_stride):
        super().__init__()
        half, first = stem_channels // 2, embed_dims[0]
        if stem_stride != 2:
            raise ValueError(f"stem_stride is {stem_stride}, written down for 2 only")
        self.num_features = embed_dims[-1]
        self.tokenizer = conv_bn_relu((3, half, 3, 2), (half, half, 3, 1), (half, stem_channels, 3, 1))
        self.conv_blocks = nn.ModuleList([
            conv_bn_relu((stem_channels, first, 1, 1), (first, first, 3, 1), (first, stem_channels, 1, 1))
            for _ in range(num_conv_blocks)])
        self.downsample = nn.Conv2d(stem_channels, first, 3, 2, 1)
        self.stages = nn.Sequential(*[
            ConvMlpStage(width, after, depth, int(width * ratio))
            for width, after, depth, ratio in zip(embed_dims, [*embed_dims[1:], None], depths, mlp_ratios)])
        self.norm = nn.LayerNorm(embed_dims[-1])

    def forward(self, images):
        x = self.tokenizer(images)
        for block in self.conv_blocks:
            x = x + block(x)
        x = self.stages(self.downsample(x).permute(0, 2, 3, 1))
        return self.norm(x.flatten(1, 2)).mean(1)


class Head(nn.Module):
    """Linear, norm, ReLU, repeated, and a last linear map; the options are those of our mlp head."""

    def __init__(self, in_features, *, layers=2, hidden, out, norm="bn", last_norm=False, last_affine=True,
                 hidden_bias=None, last_bias=None):
        super().__init__()
        hidden_bias = norm is None if hidden_bias is None else hidden_bias
        last_bias = not last_norm if last_bias is None else last_bias
        steps, width = [], in_features
        for _ in range(layers - 1):
            steps += [nn.Linear(width, hidden, bias=hidden_bias)] + ([nn.BatchNorm1d(hidden)] if norm else [])
            steps.append(nn.ReLU())
            width = hidden
        steps.append(nn.Linear(width, out, bias=last_bias))
        if last_norm:
            steps.append(nn.BatchNorm1d(out, affine=last_affine))
            if last_affine:                             # a scale and no shift
                nn.init.zeros_(steps[-1].bias)
                steps[-1].bias.requires_grad = False
        self.mlp = nn.Sequential(*steps)

    def forward(self, x):
        return self.mlp(x)


class TextBlock(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, mask):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class TextTransformer(nn.Module):
    """A causal transformer; a caption is the projected feature at its end mark, the largest id."""

    def __init__(self, *, vocab_size, context_length, width, num_layers, num_heads, out_features):
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.places = nn.Parameter(0.1 * torch.randn(context_length, width))
        self.blocks = nn.ModuleList([TextBlock(width, num_heads) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, out_features, bias=False)

    def forward(self, ids):
        length = ids.shape[1]
        x = self.token(ids) + self.places[:length]
        mask = torch.full((length, length), float("-inf")).triu_(1)
        for block in self.blocks:
            x = block(x, mask)
        return self.projection(self.norm(x)[torch.arange(len(ids)), ids.argmax(1)])


BACKBONES = {"MlpMixer": MlpMixer, "ConvMLP": ConvMLP}


def backbone(entry):
    """The backbone of a configuration entry."""
    return BACKBONES[entry["name"]](**{key: value for key, value in entry.items() if key != "name"})


def head(entry, in_features):
    """The head of a configuration entry."""
    options = {key: value for key, value in entry.items() if key != "name"}
    if entry["name"] == "linear":
        layer = nn.Module()
        layer.fc = nn.Linear(in_features, options["num_classes"])
        layer.forward = layer.fc.forward
        return layer
    return Head(in_features, **options)
