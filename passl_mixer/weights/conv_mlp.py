"""Key map of the official ConvMLP (SHI-Labs/Convolutional-MLPs, src/convmlp.py) to ``backbones.conv_mlp``.

``num_batches_tracked`` counters of BatchNorm have no counterpart and are dropped.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, batch_norm, conv, count, head, linear, size


def _conv_bn_relu(theirs: str, ours: str, *inputs_outputs_kernel) -> List[Row]:
    """Rows of convolution (index 0, 3, 6) and BatchNorm (1, 4, 7) in a Sequential."""
    result = []
    for i, (inputs, outputs, kernel) in enumerate(inputs_outputs_kernel):
        result += conv(f"{theirs}.{3 * i}", f"{ours}.{3 * i}", inputs, outputs, kernel)
        result += batch_norm(f"{theirs}.{3 * i + 1}", f"{ours}.{3 * i + 1}", outputs)
    return result


def _block(name: str, width: int, hidden: int) -> List[Row]:
    result = []
    for norm in ("norm1", "connect_norm", "norm2"):
        result += affine(f"{name}.{norm}", f"{name}.{norm}", width)
    for mlp in ("channel_mlp1", "channel_mlp2"):
        result += linear(f"{name}.{mlp}.fc1", f"{name}.{mlp}.fc1", width, hidden)
        result += linear(f"{name}.{mlp}.fc2", f"{name}.{mlp}.fc2", hidden, width)
    return result + conv(f"{name}.connect", f"{name}.connect", 1, width, 3)


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official ConvMLP, its sizes from the shapes of ``arrays``."""
    half, in_chans = size(arrays, "tokenizer.block.0.weight", 0), size(arrays, "tokenizer.block.0.weight", 1)
    stem = size(arrays, "tokenizer.block.6.weight", 0)
    first = size(arrays, "conv_stages.downsample.weight", 0)
    result = _conv_bn_relu("tokenizer.block", "tokenizer",
                           (in_chans, half, 3), (half, half, 3), (half, stem, 3))
    for i in range(count(arrays, r"conv_stages\.conv_blocks\.(\d+)\.")):
        result += _conv_bn_relu(f"conv_stages.conv_blocks.{i}", f"conv_blocks.{i}",
                                (stem, first, 1), (first, first, 3), (first, stem, 1))
    result += conv("conv_stages.downsample", "downsample", stem, first, 3, bias=True)
    num_stages = max(1, count(arrays, r"stages\.(\d+)\."))
    for s in range(num_stages):
        stage = f"stages.{s}"
        hidden, width = (size(arrays, f"{stage}.blocks.0.channel_mlp1.fc1.weight", axis) for axis in (0, 1))
        for i in range(count(arrays, rf"stages\.{s}\.blocks\.(\d+)\.")):
            result += _block(f"{stage}.blocks.{i}", width, hidden)
        if s < num_stages - 1:
            after = size(arrays, f"stages.{s + 1}.blocks.0.channel_mlp1.fc1.weight", 1)
            result += conv(f"{stage}.downsample_mlp.downsample", f"{stage}.downsample", width, after, 3,
                           bias=True)
    result += affine("norm", "norm", width) + head(arrays, width)
    norms = [row.theirs[:-len("running_mean")] for row in result if row.theirs.endswith(".running_mean")]
    counters = [f"{norm}num_batches_tracked" for norm in norms]
    return result + [Row(name, "", arrays[name].shape) for name in counters if name in arrays]
