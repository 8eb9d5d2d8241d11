"""Key map of timm's Swin Transformer to ``passl_mixer.backbones.swin``.

Source: timm/models/swin_transformer.py, since 0.8, where a stage begins with its merging.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, linear, size


def _block(theirs: str, ours: str, arrays: Dict[str, numpy.ndarray], width: int) -> List[Row]:
    table = f"{theirs}.attn.relative_position_bias_table"
    result = affine(f"{theirs}.norm1", f"{ours}.norm1", width) + affine(f"{theirs}.norm2", f"{ours}.norm2", width)
    result.append(Row(table, f"{ours}.attention.bias_table", (size(arrays, table, 0), size(arrays, table, 1))))
    result += linear(f"{theirs}.attn.qkv", f"{ours}.attention.attention.qkv", width, 3 * width)
    result += linear(f"{theirs}.attn.proj", f"{ours}.attention.attention.proj", width, width)
    hidden = size(arrays, f"{theirs}.mlp.fc1.weight", 0)
    result += linear(f"{theirs}.mlp.fc1", f"{ours}.mlp.fc1", width, hidden)
    return result + linear(f"{theirs}.mlp.fc2", f"{ours}.mlp.fc2", hidden, width)


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm Swin, its sizes from the shapes of ``arrays``."""
    width, in_chans, patch = (size(arrays, "patch_embed.proj.weight", axis) for axis in range(3))
    result = conv("patch_embed.proj", "stem", in_chans, width, patch, bias=True)
    result += affine("patch_embed.norm", "stem_norm", width)
    for s in range(count(arrays, r"layers\.(\d+)\.")):
        if s > 0:
            merge = f"layers.{s}.downsample"
            result += affine(f"{merge}.norm", f"merges.{s - 1}.norm", 4 * width)
            result += linear(f"{merge}.reduction", f"merges.{s - 1}.reduction", 4 * width, 2 * width, bias=False)
            width *= 2
        for i in range(count(arrays, rf"layers\.{s}\.blocks\.(\d+)\.")):
            result += _block(f"layers.{s}.blocks.{i}", f"stages.{s}.{i}", arrays, width)
    # A missing classifier is listed with whatever else is missing; its size does not matter then.
    num_classes = size(arrays, "head.fc.weight", 0) if "head.fc.weight" in arrays else 0
    return result + affine("norm", "norm", width) + linear("head.fc", "head.fc", width, num_classes)
