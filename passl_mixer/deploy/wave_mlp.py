"""Wave-MLP's mixer for programs on a CPU: channels first, and the grouped convolution as products with band matrices.

Paddle's CPU kernel is slow for groups of two channels, and every change of axes is a copy. Here the linear maps write
[B, C, S] directly, as products of their transposed weight and input. Mixing along an axis is, for each channel, a
product with a matrix of seven diagonals. That is eight times the arithmetic at 56 positions, and less time: 5.8 ms
instead of 20.4 for the mixing along the height with its linear maps, 8 x 56 x 56 x 64 (1.8 instead of 5.8 at
8 x 7 x 7 x 512).

Shapes: B images, H x W positions, S = H * W, C channels; C, H and W known when the program is traced, B perhaps not.
"""
import copy

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import ops
from passl_mixer.layers.stages import branch_shares


def planes(x_bsc, weight):
    """Linear map of the channels of [B, S, C] with weight [C, D] and channels first in the result: [B, D, S]."""
    return paddle.matmul(weight, x_bsc, transpose_x=True, transpose_y=True)


def bands(weight, side: int):
    """A convolution along an axis as band matrices [C, 2, side, side]: input position by output position.

    Args:
        weight: [C, 2, k, 1] or [C, 2, 1, k], k odd; zeros outside the axis.
        side: positions along the axis.
    """
    channels, inputs, height, width = weight.shape
    taps = height * width
    diagonal = ops.pad_axis(paddle.eye(side, dtype=weight.dtype), 1, taps // 2, taps // 2)
    shifted = paddle.stack([diagonal[:, tap:tap + side] for tap in range(taps)])
    matrices = paddle.matmul(weight.reshape([channels * inputs, taps]), shifted.flatten(1))
    return matrices.reshape([channels, inputs, side, side])


def mix_pairs(wave_bchw, weight):
    """Convolution along the axis of its kernel, with two channels a group: [B, 2 C, H, W] to [B, C, H, W].

    Args:
        wave_bchw: [B, 2 C, H, W].
        weight: as in ``bands``; output channel c reads the channels 2 c and 2 c + 1.
    """
    channels, (height, width) = weight.shape[0], wave_bchw.shape[2:]
    if weight.shape[3] == 1:        # the two channels are stacked: the sum is over 2 H rows
        band = bands(weight, height).transpose([0, 3, 1, 2]).reshape([channels, height, 2 * height])
        return paddle.matmul(band, wave_bchw.reshape([-1, channels, 2 * height, width]))
    pairs = paddle.matmul(wave_bchw.reshape([-1, channels, 2, height, width]), bands(weight, width))
    return pairs[:, :, 0] + pairs[:, :, 1]


class PlaneMix(nn.Layer):
    """A ``WaveMix`` in evaluation mode, from [B, S, C] to [B, C, S].

    Args:
        mix: the ``WaveMix``; its BatchNorm is folded into weight and bias of the phase's map.
    """

    def __init__(self, mix):
        super().__init__()
        phase, norm = mix.phase, mix.phase.norm
        self.amplitude, self.mix, self.depthwise = mix.amplitude.weight, mix.mix.weight, phase.depthwise
        scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
        mean = norm._mean if phase.map.bias is None else norm._mean - phase.map.bias
        self.weight, self.bias = self.create_parameter(phase.map.weight.shape), self.create_parameter(scale.shape)
        self.weight.set_value(phase.map.weight * (scale.reshape([-1, 1, 1, 1]) if phase.depthwise else scale))
        self.bias.set_value(norm.bias - mean * scale)

    def forward(self, x_bsc, sides):
        """Phase-aware token mixing along the axis of the kernel; [B, S, C] -> [B, C, S], ``sides`` (H, W)."""
        if self.depthwise:
            x_bchw = x_bsc.transpose([0, 2, 1]).reshape([-1, x_bsc.shape[2], *sides])
            phase = F.conv2d(x_bchw, self.weight, self.bias, padding=1, groups=x_bsc.shape[2])
        else:
            phase = planes(x_bsc, self.weight) + self.bias.unsqueeze(-1)
        # Flatten before ReLU, even if it is flat: without that, Paddle 3.3.1 gives cosine and sine the same result of
        # oneDNN as input, computes the sine in place, and the cosine of that.
        phase, amplitude = F.relu(phase.flatten(2)), planes(x_bsc, self.amplitude)
        wave_bcs = paddle.concat([amplitude * paddle.cos(phase), amplitude * paddle.sin(phase)], axis=1)
        return mix_pairs(wave_bcs.reshape([-1, wave_bcs.shape[1], *sides]), self.mix).flatten(2)


class PlaneMixer(nn.Layer):
    """A ``WaveMixer`` in evaluation mode, from [B, H, W, C] to the same.

    Args:
        mixer: the ``WaveMixer``; its parameters are used.
    """

    def __init__(self, mixer):
        super().__init__()
        self.along_width, self.along_height = PlaneMix(mixer.along_width), PlaneMix(mixer.along_height)
        self.channel, self.proj = mixer.channel, mixer.proj
        self.reweight1, self.reweight2 = mixer.reweight1, mixer.reweight2

    def forward(self, x_bhwc):
        """As ``WaveMixer.forward``; [B, H, W, C] to the same."""
        height, width, channels = x_bhwc.shape[1:]
        positions, x_bsc = height * width, x_bhwc.flatten(1, 2)
        branches = [*(branch(x_bsc, (height, width)) for branch in (self.along_width, self.along_height)),
                    planes(x_bsc, self.channel.weight)]
        share = paddle.full([positions, 1], 1.0 / positions)
        mean_bc = paddle.matmul(paddle.add_n(branches), share).squeeze(-1)
        shares_bc = branch_shares(mean_bc, self.reweight1, self.reweight2, len(branches), x_bhwc.dtype)
        y_bcs = paddle.add_n([branch * paddle.tile(share_bc.unsqueeze(-1), [1, 1, positions])
                              for branch, share_bc in zip(branches, shares_bc)])
        return self.proj(y_bcs.transpose([0, 2, 1])).reshape([-1, height, width, channels])


class PlaneBlock(nn.Layer):
    """A ``WaveBlock`` in evaluation mode, from [B, H, W, C] to the same.

    The channel MLP works on rows [B, H * W, C], as products in bfloat16 need them.

    Args:
        block: the ``WaveBlock``.
    """

    def __init__(self, block):
        super().__init__()
        self.norm1, self.norm2, self.fc1, self.fc2 = block.norm1, block.norm2, block.fc1, block.fc2
        self.mixer = PlaneMixer(block.mixer)

    def forward(self, x_bhwc):
        """As ``WaveBlock.forward``; [B, H, W, C] to the same."""
        x_bhwc = x_bhwc + self.mixer(self.norm1(x_bhwc))
        rows = self.fc2(self.fc1(self.norm2(x_bhwc).flatten(1, 2), "gelu"))
        return x_bhwc + rows.reshape([-1, *x_bhwc.shape[1:]])


def with_planes(network):
    """A copy of a WaveMLP with ``PlaneBlock``; for tracing in evaluation mode, not for training."""
    network = copy.deepcopy(network)
    network.stages = nn.LayerList([nn.LayerList([PlaneBlock(block) for block in blocks]) for blocks in network.stages])
    return network
