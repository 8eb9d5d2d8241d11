"""Key map of timm's gMLP (timm/models/mlp_mixer.py) to ``passl_mixer.backbones.gmlp``.

Token-mixing weights keep timm's [out, in]: ours multiply from the left.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm gMLP, its sizes from the shapes of ``arrays``."""
    width, in_chans, patch = (size(arrays, "stem.proj.weight", axis) for axis in range(3))
    result = conv("stem.proj", "stem", in_chans, width, patch, bias=True)
    tokens = size(arrays, "blocks.0.mlp_channels.gate.proj.weight", 0)
    hidden = size(arrays, "blocks.0.mlp_channels.fc1.weight", 0)
    for i in range(count(arrays, r"blocks\.(\d+)\.")):
        theirs, ours = f"blocks.{i}.mlp_channels", f"blocks.{i}"
        result += affine(f"{ours}.norm", f"{ours}.norm", width)
        result += linear(f"{theirs}.fc1", f"{ours}.fc1", width, hidden)
        result += affine(f"{theirs}.gate.norm", f"{ours}.gate.norm", hidden // 2)
        result += [Row(f"{theirs}.gate.proj.weight", f"{ours}.gate.token_mixing.weight", (tokens, tokens)),
                   Row(f"{theirs}.gate.proj.bias", f"{ours}.gate.token_mixing.bias", (tokens,))]
        result += linear(f"{theirs}.fc2", f"{ours}.fc2", hidden // 2, width)
    return result + affine("norm", "norm", width) + head(arrays, width)
