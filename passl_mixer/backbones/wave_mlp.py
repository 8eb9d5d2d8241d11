"""Wave-MLP: An Image Patch is a Wave, Phase-Aware Vision MLP (Tang et al. 2021, arXiv:2111.12294).

Official code, read for its facts only: https://github.com/huawei-noah/Efficient-AI-Backbones,
wavemlp_pytorch/models/wavemlp.py; a second reference is keras_cv_attention_models' wave_mlp.py (MIT), which
agrees on the layers. From the official code: stem 7 x 7, stride 4, padding 2, and
down-sampling 3 x 3, stride 2, padding 1, with bias, then the norm (none in M and B); amplitudes and the channel
branch are maps without bias; a phase is a map with bias ("fc") or a depth-wise 3 x 3 without ("depthwise"),
BatchNorm and ReLU; token mixing is grouped 1 x 7 and 7 x 1 without bias; scores of the three branches from
C -> C / 4 -> 3 C; a last map with bias; channel MLP with GELU; BatchNorm (T*, T) or GroupNorm with one group
(S, M, B) before both halves of a block and after the last stage; PyTorch's default initialisation of
convolutions everywhere (every linear map is one there); drop path rising linearly over all blocks. Depths,
widths and ratios are those of its WaveMLP_T_dw (T* in its README), _T, _S, _M and _B.

Worth knowing: the official token mixing has C groups over the 2 C channels [x cos, x sin], so output channel j
reads channels 2 j and 2 j + 1 of these: outputs below C / 2 mix cosine parts and the others sine parts, each of
two neighbouring amplitudes; no output reads cosine and sine part of its own amplitude. We follow the code.

Deviation: ``stem_stride`` 2 is ours, for small images.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
import functools
import math
from typing import Sequence

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput, nearest
from passl_mixer.layers.basic import DropPath, linear_rates, two_layers
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.convolution import Conv2D, torch_conv, torch_pointwise
from passl_mixer.layers.group_norm import GroupNorm1
from passl_mixer.layers.initialisers import attr, torch_uniform
from passl_mixer.layers.stages import STEMS, check_stages, conv_stage_outputs, weigh_branches

PHASES = ("fc", "depthwise")
# "batch": BatchNorm; "group": positions and channels of an image are one group. On [B, H, W, C], on [B, C, H, W].
NORMS = {"batch": (functools.partial(BatchNorm2D, data_format="NHWC"), BatchNorm2D),
         "group": (GroupNorm1, functools.partial(nn.GroupNorm, 1)), "none": (nn.Identity, nn.Identity)}
WINDOW = 7  # positions that token mixing reads along an axis


def conv_norm(in_chans: int, out_chans: int, kernel: int, *, stride: int, padding: int, norm: str) -> nn.Layer:
    """Stem or down-sampling: convolution with bias and a norm on [B, C, H, W].

    Args:
        in_chans, out_chans, kernel, stride, padding: as of ``Conv2D``.
        norm: "batch", "group" or "none".
    """
    return nn.Sequential(torch_conv(in_chans, out_chans, kernel, stride=stride, padding=padding),
                         NORMS[norm][1](out_chans))


class Phase(nn.Layer):
    """Phase of every position and channel of [B, H, W, C], at least 0: a map, BatchNorm, ReLU.

    Args:
        width: channels in and out.
        kind: "fc" maps the channels of a position, "depthwise" 3 x 3 positions of a channel.
    Source: the official code's PATM, modes "fc" and "depthwise" (the latter: T*).
    """

    def __init__(self, width: int, *, kind: str):
        super().__init__()
        self.depthwise = kind == "depthwise"
        self.map = torch_conv(width, width, 3, padding=1, groups=width, bias=False) if self.depthwise \
            else torch_pointwise(width, width)
        self.norm = BatchNorm2D(width, data_format="NHWC", post_act="relu")

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to their phases, of the same shape, in radians."""
        return self.norm(self.map(x_bhwc, data_format="NHWC") if self.depthwise else self.map(x_bhwc))


class PairMix(Conv2D):
    """The grouped convolution of waves, described at the top of this file, together with their unfolding.

    Args:
        width: channels of the amplitudes, and out.
        kernel: (height, width) of the window, one of them 1.
    """

    def __init__(self, width: int, kernel: Sequence[int]):
        super().__init__(2 * width, width, kernel, padding=[side // 2 for side in kernel], groups=width,
                         weight_attr=attr(torch_uniform(2 * math.prod(kernel))), bias_attr=False)

    def forward(self, amplitude_bhwc, phase_bhwc):
        """The mixed waves, [B, H, W, C].

        Args:
            amplitude_bhwc: [B, H, W, C].
            phase_bhwc: of the same shape, in radians.
        """
        return ops.wave_mix(amplitude_bhwc, phase_bhwc, self.weight)


class WaveMix(nn.Layer):
    """Phase-aware token mixing along one axis of [B, H, W, C].

    Args:
        width: channels in and out.
        axis: 1 mixes along the height, 2 along the width; zeros outside the image.
        phase: "fc" or "depthwise".
    Source: the official code's PATM, with the grouping described at the top of this file.
    """

    def __init__(self, width: int, *, axis: int, phase: str):
        super().__init__()
        self.amplitude = torch_pointwise(width, width, bias=False)
        self.phase = Phase(width, kind=phase)
        self.mix = PairMix(width, (WINDOW, 1) if axis == 1 else (1, WINDOW))

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        return self.mix(self.amplitude(x_bhwc), self.phase(x_bhwc))


class WaveMixer(nn.Layer):
    """PATM: width, height and channel branches, weighted per channel by a softmax; [B, H, W, C] to the same."""

    def __init__(self, width: int, *, phase: str):
        super().__init__()
        self.along_width = WaveMix(width, axis=2, phase=phase)
        self.along_height = WaveMix(width, axis=1, phase=phase)
        self.channel = torch_pointwise(width, width, bias=False)
        self.reweight1 = torch_pointwise(width, width // 4)
        self.reweight2 = torch_pointwise(width // 4, 3 * width)
        self.proj = torch_pointwise(width, width)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        branches = [self.along_width(x_bhwc), self.along_height(x_bhwc), self.channel(x_bhwc)]
        return self.proj(weigh_branches(branches, self.reweight1, self.reweight2))


class WaveBlock(nn.Layer):
    """``x += mixer(norm(x)); x += mlp(norm(x))``; [B, H, W, C] to the same.

    Args:
        width: channels C.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        phase: as in ``WaveMix``.
        norm: "batch" or "group".
        drop_path: rate of stochastic depth, in [0, 1).
    """

    def __init__(self, width: int, *, mlp_ratio: float, phase: str, norm: str, drop_path: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1, self.norm2 = NORMS[norm][0](width), NORMS[norm][0](width)
        self.mixer = WaveMixer(width, phase=phase)
        self.fc1, self.fc2 = torch_pointwise(width, hidden), torch_pointwise(hidden, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        x_bhwc = x_bhwc + self.drop_path(self.mixer(self.norm1(x_bhwc)))
        return x_bhwc + self.drop_path(two_layers(self, self.norm2(x_bhwc), "gelu"))


class WaveMLP(nn.Layer):
    """Wave-MLP without a classifier; takes any image size.

    Args:
        in_chans: image channels.
        embed_dims: width of each stage, 4 at least.
        depths: blocks of each stage.
        mlp_ratios: hidden width of the channel MLPs of each stage, as a multiple of its width.
        phase: how phases are estimated: "fc", or "depthwise" (cheaper, T* of the paper).
        norms: a pair [blocks, convolutions]: the norm of the blocks and of the output, "batch" or "group"; and
            the norm after the stem and the down-samplings, "batch", "group" or "none".
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks,
            in [0, 1); the authors train with 0.1.
        stem_stride: 4 is published (7 x 7 convolution); 2 is a 3 x 3 convolution for small images.
    Raises:
        BadInput: the options do not fit each other.
    Source: Tang et al. 2021, arXiv:2111.12294, and the official code's WaveNet.
    """

    img_size = None

    def __init__(self, *, in_chans: int = 3, embed_dims: Sequence[int] = (64, 128, 320, 512),
                 depths: Sequence[int] = (2, 2, 4, 2), mlp_ratios: Sequence[float] = (4, 4, 4, 4),
                 phase: str = "fc", norms: Sequence[str] = ("batch", "batch"),
                 drop_path_rate: float = 0.0, stem_stride: int = 4):
        super().__init__()
        check_stages(in_chans=in_chans, stem_stride=stem_stride, embed_dims=embed_dims, depths=depths,
                     mlp_ratios=mlp_ratios)
        if phase not in PHASES:
            raise BadInput(f"unknown phase {phase!r}{nearest(phase, PHASES)}")
        if len(norms) != 2 or norms[0] not in NORMS or norms[0] == "none" or norms[1] not in NORMS:
            raise BadInput(f"norms is {list(norms)}, expected a pair [blocks, convolutions]: 'batch' or 'group', "
                           "then 'batch', 'group' or 'none'")
        block_norm, conv_norm_kind = norms
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.feature_channels = tuple(embed_dims)
        self.feature_strides = tuple(stem_stride * 2 ** i for i in range(len(embed_dims)))
        kernel, padding = STEMS[stem_stride]
        self.stem = conv_norm(in_chans, embed_dims[0], kernel, stride=stem_stride, padding=padding,
                              norm=conv_norm_kind)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([WaveBlock(width, mlp_ratio=ratio, phase=phase, norm=block_norm, drop_path=next(rates))
                          for _ in range(depth)])
            for width, depth, ratio in zip(embed_dims, depths, mlp_ratios)])
        self.downsamples = nn.LayerList([
            conv_norm(width, next_width, 3, stride=2, padding=1, norm=conv_norm_kind)
            for width, next_width in zip(embed_dims[:-1], embed_dims[1:])])
        self.norm = NORMS[block_norm][0](self.num_features)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(conv_stage_outputs(self, images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """Output of every stage before down-sampling, not normalised: [B, C_i, H / stride, W / stride]."""
        return [ops.permute(x_bhwc, [0, 3, 1, 2]) for x_bhwc in conv_stage_outputs(self, images)]
