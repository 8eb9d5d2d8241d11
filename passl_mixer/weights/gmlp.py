"""Key map of timm's gMLP (timm/models/mlp_mixer.py) to ``passl_mixer.backbones.gmlp``.

Token-mixing weights keep timm's [out, in]: ours multiply from the left.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Every array of a timm gMLP whose sizes are read off ``arrays``."""
    width, in_chans, patch = (size(arrays, "stem.proj.weight", axis) for axis in range(3))
    found = conv("stem.proj", "stem", in_chans, width, patch, bias=True)
    tokens = size(arrays, "blocks.0.mlp_channels.gate.proj.weight", 0)
    hidden = size(arrays, "blocks.0.mlp_channels.fc1.weight", 0)
    for i in range(count(arrays, r"blocks\.(\d+)\.")):
        theirs, ours = f"blocks.{i}.mlp_channels", f"blocks.{i}"
        found += affine(f"{ours}.norm", f"{ours}.norm", width)
        found += linear(f"{theirs}.fc1", f"{ours}.fc1", width, hidden)
        found += affine(f"{theirs}.gate.norm", f"{ours}.gate.norm", hidden // 2)
        found += [Row(f"{theirs}.gate.proj.weight", f"{ours}.gate.token_mixing.weight", (tokens, tokens)),
                  Row(f"{theirs}.gate.proj.bias", f"{ours}.gate.token_mixing.bias", (tokens,))]
        found += linear(f"{theirs}.fc2", f"{ours}.fc2", hidden // 2, width)
    return found + affine("norm", "norm", width) + head(arrays, width)
