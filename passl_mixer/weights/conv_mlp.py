"""Key map of the official ConvMLP (SHI-Labs/Convolutional-MLPs, src/convmlp.py) to ``backbones.conv_mlp``.

``num_batches_tracked`` counters of BatchNorm have no counterpart and are dropped.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, batch_norm, conv, count, head, linear, size


def _conv_bn_relu(theirs: str, ours: str, *inputs_outputs_kernel) -> List[Row]:
    """Rows of convolution (index 0, 3, 6) and BatchNorm (1, 4, 7) in a Sequential."""
    found = []
    for i, (inputs, outputs, kernel) in enumerate(inputs_outputs_kernel):
        found += conv(f"{theirs}.{3 * i}", f"{ours}.{3 * i}", inputs, outputs, kernel)
        found += batch_norm(f"{theirs}.{3 * i + 1}", f"{ours}.{3 * i + 1}", outputs)
    return found


def _block(name: str, width: int, hidden: int) -> List[Row]:
    found = []
    for norm in ("norm1", "connect_norm", "norm2"):
        found += affine(f"{name}.{norm}", f"{name}.{norm}", width)
    for mlp in ("channel_mlp1", "channel_mlp2"):
        found += linear(f"{name}.{mlp}.fc1", f"{name}.{mlp}.fc1", width, hidden)
        found += linear(f"{name}.{mlp}.fc2", f"{name}.{mlp}.fc2", hidden, width)
    return found + conv(f"{name}.connect", f"{name}.connect", 1, width, 3)


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Every array of an official ConvMLP whose sizes are read off ``arrays``."""
    half, in_chans = size(arrays, "tokenizer.block.0.weight", 0), size(arrays, "tokenizer.block.0.weight", 1)
    stem = size(arrays, "tokenizer.block.6.weight", 0)
    first = size(arrays, "conv_stages.downsample.weight", 0)
    found = _conv_bn_relu("tokenizer.block", "tokenizer",
                          (in_chans, half, 3), (half, half, 3), (half, stem, 3))
    for i in range(count(arrays, r"conv_stages\.conv_blocks\.(\d+)\.")):
        found += _conv_bn_relu(f"conv_stages.conv_blocks.{i}", f"conv_blocks.{i}",
                               (stem, first, 1), (first, first, 3), (first, stem, 1))
    found += conv("conv_stages.downsample", "downsample", stem, first, 3, bias=True)
    num_stages = max(1, count(arrays, r"stages\.(\d+)\."))
    for s in range(num_stages):
        stage = f"stages.{s}"
        hidden, width = (size(arrays, f"{stage}.blocks.0.channel_mlp1.fc1.weight", axis) for axis in (0, 1))
        for i in range(count(arrays, rf"stages\.{s}\.blocks\.(\d+)\.")):
            found += _block(f"{stage}.blocks.{i}", width, hidden)
        if s < num_stages - 1:
            after = size(arrays, f"stages.{s + 1}.blocks.0.channel_mlp1.fc1.weight", 1)
            found += conv(f"{stage}.downsample_mlp.downsample", f"{stage}.downsample", width, after, 3,
                          bias=True)
    found += affine("norm", "norm", width) + head(arrays, width)
    norms = [row.theirs[:-len("running_mean")] for row in found if row.theirs.endswith(".running_mean")]
    counters = [f"{norm}num_batches_tracked" for norm in norms]
    return found + [Row(name, "", arrays[name].shape) for name in counters if name in arrays]
