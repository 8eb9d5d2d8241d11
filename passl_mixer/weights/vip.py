"""Key map of the official ViP (Andrew-Qibin/VisionPermutator, models/vip.py) to ``passl_mixer.backbones.vip``.

The official ``network`` lists stages and down-samplings in turn, but a down-sampling only where the resolution or the
width changes: an index with a ``proj`` is a down-sampling, one with blocks is a stage.
"""
from typing import Dict, List

import numpy

from passl_mixer.errors import BadInput
from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size

# The three branches, without bias; the official names, then ours.
BRANCHES = (("mlp_c", "channel"), ("mlp_h", "along_height"), ("mlp_w", "along_width"))


def _block(theirs: str, ours: str, width: int, hidden: int) -> List[Row]:
    result = affine(f"{theirs}.norm1", f"{ours}.norm1", width)
    for official, name in BRANCHES:
        result += linear(f"{theirs}.attn.{official}", f"{ours}.mixer.{name}", width, width, bias=False)
    return [*result, *linear(f"{theirs}.attn.reweight.fc1", f"{ours}.mixer.reweight1", width, width // 4),
            *linear(f"{theirs}.attn.reweight.fc2", f"{ours}.mixer.reweight2", width // 4, 3 * width),
            *linear(f"{theirs}.attn.proj", f"{ours}.mixer.proj", width, width),
            *affine(f"{theirs}.norm2", f"{ours}.norm2", width),
            *linear(f"{theirs}.mlp.fc1", f"{ours}.mlp.fc1", width, hidden),
            *linear(f"{theirs}.mlp.fc2", f"{ours}.mlp.fc2", hidden, width)]


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official ViP, its sizes from the shapes of ``arrays``.

    Raises:
        BadInput: a down-sampling before the first stage.
    """
    width, in_chans, patch = (size(arrays, "patch_embed.proj.weight", axis) for axis in range(3))
    result, stage = conv("patch_embed.proj", "stem", in_chans, width, patch, bias=True), -1
    for n in range(count(arrays, r"network\.(\d+)\.")):
        theirs = f"network.{n}"
        if any(name.startswith(f"{theirs}.proj.") for name in arrays):
            if stage < 0:
                raise BadInput("not a vip (official) state dict: network.0 is a down-sampling, expected a stage")
            after, kernel = (size(arrays, f"{theirs}.proj.weight", axis) for axis in (0, 2))
            result += conv(f"{theirs}.proj", f"downsamples.{stage}", width, after, kernel, bias=True)
            width = after
            continue
        stage += 1
        hidden = size(arrays, f"{theirs}.0.mlp.fc1.weight", 0)
        for i in range(count(arrays, rf"network\.{n}\.(\d+)\.")):
            result += _block(f"{theirs}.{i}", f"stages.{stage}.{i}", width, hidden)
    return result + affine("norm", "norm", width) + head(arrays, width)
