"""Key maps of timm's and the official ConvMixer (locuslab/convmixer, convmixer.py) to ``backbones.conv_mixer``.

Both are the same layers. The official network is one flat Sequential: stem 0 to 2, blocks from 3 on, pooling,
flattening and, at number of blocks + 5, the classifier; timm names stem, blocks and head. Counters
``num_batches_tracked`` of BatchNorm have no counterpart and are dropped.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, batch_norm, conv, count, linear, size


def _rows(arrays: Dict[str, numpy.ndarray], stem: str, blocks: List[str], head: str) -> List[Row]:
    """Rows of a ConvMixer from the prefixes of its stem ("stem." or none), blocks and classifier."""
    width, in_chans, patch = (size(arrays, f"{stem}0.weight", axis) for axis in range(3))
    result = conv(f"{stem}0", "stem", in_chans, width, patch, bias=True)
    result += batch_norm(f"{stem}2", "stem_norm", width)
    kernel = size(arrays, f"{blocks[0]}.0.fn.0.weight", 2)
    for i, block in enumerate(blocks):
        result += conv(f"{block}.0.fn.0", f"blocks.{i}.depthwise", 1, width, kernel, bias=True)
        result += batch_norm(f"{block}.0.fn.2", f"blocks.{i}.norm1", width)
        result += conv(f"{block}.1", f"blocks.{i}.pointwise", width, width, 1, bias=True)
        result += batch_norm(f"{block}.3", f"blocks.{i}.norm2", width)
    # A missing classifier is listed with whatever else is missing; its size does not matter then.
    num_classes = size(arrays, f"{head}.weight", 0) if f"{head}.weight" in arrays else 0
    result += linear(head, "head.fc", width, num_classes)
    norms = [row.theirs[:-len("running_mean")] for row in result if row.theirs.endswith(".running_mean")]
    counters = [f"{norm}num_batches_tracked" for norm in norms]
    return result + [Row(name, "", arrays[name].shape) for name in counters if name in arrays]


def timm_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm ConvMixer, its sizes from the shapes of ``arrays``."""
    num_blocks = max(1, count(arrays, r"blocks\.(\d+)\."))
    return _rows(arrays, "stem.", [f"blocks.{i}" for i in range(num_blocks)], "head")


def official_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official ConvMixer, its sizes from the shapes of ``arrays``."""
    num_blocks = max(1, count(arrays, r"(\d+)\.0\.fn\.") - 3)
    return _rows(arrays, "", [str(3 + i) for i in range(num_blocks)], str(num_blocks + 5))
