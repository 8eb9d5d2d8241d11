"""Key map of timm's MlpMixer (timm/models/mlp_mixer.py) to ``passl_mixer.backbones.mlp_mixer``.

Token-mixing weights keep timm's [out, in]: ours multiply from the left.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm MlpMixer, its sizes from the shapes of ``arrays``."""
    width, in_chans, patch = (size(arrays, "stem.proj.weight", axis) for axis in range(3))
    result = conv("stem.proj", "stem", in_chans, width, patch, bias=True)
    hidden = size(arrays, "blocks.0.mlp_tokens.fc1.weight", 0)
    tokens = size(arrays, "blocks.0.mlp_tokens.fc1.weight", 1)
    channel_hidden = size(arrays, "blocks.0.mlp_channels.fc1.weight", 0)
    for i in range(count(arrays, r"blocks\.(\d+)\.")):
        block = f"blocks.{i}"
        result += affine(f"{block}.norm1", f"{block}.norm1", width)
        for part, inputs, outputs in (("fc1", tokens, hidden), ("fc2", hidden, tokens)):
            theirs, ours = f"{block}.mlp_tokens.{part}", f"{block}.token_mlp.{part}"
            result += [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs)),
                       Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))]
        result += affine(f"{block}.norm2", f"{block}.norm2", width)
        result += linear(f"{block}.mlp_channels.fc1", f"{block}.channel_mlp.fc1", width, channel_hidden)
        result += linear(f"{block}.mlp_channels.fc2", f"{block}.channel_mlp.fc2", channel_hidden, width)
    return result + affine("norm", "norm", width) + head(arrays, width)
