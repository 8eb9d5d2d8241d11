"""Networks of the PyTorch peers: timm's by name, and CycleMLP and ConvMLP written here from their papers.

CycleMLP: arXiv:2107.10224 (section 3, table 1); CycleFC is a shift of channels and a linear map, as in our Paddle
code, not a deformable convolution. ConvMLP: arXiv:2109.04454 (figure 2, table 1). Tensors are [B, H, W, C] where a
name says bhwc. Initial weights are PyTorch's: only time is measured here.
"""
import sys
from importlib import metadata

import torch
import torch.nn.functional as F
from torch import nn

CYCLE = {"cycle_mlp_b1": ((64, 128, 320, 512), (2, 2, 4, 2), 4)}
CONV = {"conv_mlp_s": (64, 2, (128, 256, 512), (2, 4, 2), 2)}


def import_torchvision() -> None:
    """Import torchvision; where its compiled part does not fit the PyTorch beside it, name the operators it misses.

    timm imports torchvision for its data pipeline; nothing measured here uses those operators.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


def versions() -> dict:
    """Versions of what a peer's numbers depend on."""
    found = {}
    for name in ("torch", "timm", "torchvision", "lightly"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def timm_mixer(options: dict) -> nn.Module:
    """timm's MlpMixer of any size; ``options`` are its constructor's."""
    import_torchvision()
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(**options)


def build(network: dict) -> nn.Module:
    """The network that a set-up names: ``{"timm": name, "options": {}}``, ``{"mixer": options}``, ``{"own": name}``."""
    if "own" in network:
        name = network["own"]
        return CycleMlp(*CYCLE[name]) if name in CYCLE else ConvMlp(*CONV[name])
    if "mixer" in network:
        return timm_mixer(network["mixer"])
    import_torchvision()
    import timm

    return timm.create_model(network["timm"], pretrained=False, **network.get("options", {}))


def mlp(width: int, hidden: int) -> nn.Module:
    """Linear, GELU, linear."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class CycleFC(nn.Module):
    """Channel i is read from position 0, +1, -1 along ``axis`` for i % 3 = 0, 1, 2, then mapped."""

    def __init__(self, width: int, axis: int):
        super().__init__()
        self.axis, self.fc = axis, nn.Linear(width, width)

    def forward(self, x_bhwc):
        sides = (0, 0, 0, 0, 1, 1) if self.axis == 1 else (0, 0, 1, 1)
        padded, length = F.pad(x_bhwc, sides), x_bhwc.shape[self.axis]
        after, before = padded.narrow(self.axis, 2, length), padded.narrow(self.axis, 0, length)
        shifted = torch.cat([x_bhwc[..., 0::3], after[..., 1::3], before[..., 2::3]], dim=-1)
        columns = torch.cat([self.fc.weight[:, k::3] for k in range(3)], dim=1)
        return F.linear(shifted, columns, self.fc.bias)


class CycleBlock(nn.Module):
    """Three branches (width, height, channel) weighted by a softmax, then the channel MLP; both residual."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.along_width, self.along_height = CycleFC(width, 2), CycleFC(width, 1)
        self.channel = nn.Linear(width, width, bias=False)
        self.reweight = nn.Sequential(nn.Linear(width, width // 4), nn.GELU(), nn.Linear(width // 4, 3 * width))
        self.proj, self.mlp = nn.Linear(width, width), mlp(width, ratio * width)

    def mix(self, x_bhwc):
        """The token part of the block."""
        w, h, c = self.along_width(x_bhwc), self.along_height(x_bhwc), self.channel(x_bhwc)
        scores = self.reweight((w + h + c).mean(dim=(1, 2))).reshape(-1, 1, 1, w.shape[-1], 3)
        share_w, share_h, share_c = scores.softmax(dim=-1).unbind(dim=-1)
        return self.proj(w * share_w + h * share_h + c * share_c)

    def forward(self, x_bhwc):
        x_bhwc = x_bhwc + self.mix(self.norm1(x_bhwc))
        return x_bhwc + self.mlp(self.norm2(x_bhwc))


class CycleMlp(nn.Module):
    """CycleMLP with its classifier."""

    def __init__(self, widths, depths, ratio: int):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 7, stride=4, padding=2)
        self.stages = nn.ModuleList(nn.Sequential(*[CycleBlock(width, ratio) for _ in range(depth)])
                                    for width, depth in zip(widths, depths))
        self.downsamples = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:]))
        self.norm, self.head = nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 1000)

    def forward(self, images):
        x_bhwc = self.stem(images).permute(0, 2, 3, 1)
        for i, stage in enumerate(self.stages):
            if i:
                x_bhwc = self.downsamples[i - 1](x_bhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x_bhwc = stage(x_bhwc)
        return self.head(self.norm(x_bhwc).mean(dim=(1, 2)))


def conv_bn_relu(*chans_kernel_stride) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU for each ``(in, out, kernel, stride)``."""
    layers = []
    for in_chans, out_chans, kernel, stride in chans_kernel_stride:
        layers += [nn.Conv2d(in_chans, out_chans, kernel, stride=stride, padding=kernel // 2, bias=False),
                   nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class ConvMlpBlock(nn.Module):
    """Channel MLP, depth-wise convolution without residual, channel MLP."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.mlp1, self.mlp2 = mlp(width, ratio * width), mlp(width, ratio * width)
        self.connect = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)

    def forward(self, x_bhwc):
        x_bhwc = x_bhwc + self.mlp1(self.norm1(x_bhwc))
        x_bhwc = self.connect(self.norm2(x_bhwc).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x_bhwc + self.mlp2(self.norm3(x_bhwc))


class ConvMlp(nn.Module):
    """ConvMLP with its classifier."""

    def __init__(self, stem: int, num_conv_blocks: int, widths, depths, ratio: int):
        super().__init__()
        first = widths[0]
        self.tokenizer = nn.Sequential(*conv_bn_relu((3, stem // 2, 3, 2), (stem // 2, stem // 2, 3, 1),
                                                     (stem // 2, stem, 3, 1)), nn.MaxPool2d(3, 2, 1))
        self.conv_blocks = nn.ModuleList(conv_bn_relu((stem, first, 1, 1), (first, first, 3, 1), (first, stem, 1, 1))
                                         for _ in range(num_conv_blocks))
        self.downsamples = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1)
                                         for a, b in zip((stem, *widths), widths))
        self.stages = nn.ModuleList(nn.Sequential(*[ConvMlpBlock(width, ratio) for _ in range(depth)])
                                    for width, depth in zip(widths, depths))
        self.norm, self.head = nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 1000)

    def forward(self, images):
        x_bchw = self.tokenizer(images)
        for block in self.conv_blocks:
            x_bchw = x_bchw + block(x_bchw)
        for downsample, stage in zip(self.downsamples, self.stages):
            x_bhwc = stage(downsample(x_bchw).permute(0, 2, 3, 1))
            x_bchw = x_bhwc.permute(0, 3, 1, 2)
        return self.head(self.norm(x_bhwc).mean(dim=(1, 2)))
