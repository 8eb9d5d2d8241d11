"""Key map of the official AS-MLP (svip-lab/AS-MLP, models/as_mlp.py) to ``passl_mixer.backbones.as_mlp``.

The 1 x 1 convolutions there, [out, in, 1, 1], are linear maps here, [in, out]. The shift has no state.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, head, size

# Maps of an axial shift: the official names, then ours. conv2_1 follows the shift along the width.
SHIFT_MAPS = (("conv1", "enter"), ("conv2_1", "along_width"), ("conv2_2", "along_height"), ("conv3", "proj"))


def _pointwise(theirs: str, ours: str, inputs: int, outputs: int, *, bias: bool = True) -> List[Row]:
    result = [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs, 1, 1), True)]
    return result + ([Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))] if bias else [])


def _block(theirs: str, ours: str, width: int, hidden: int) -> List[Row]:
    result = affine(f"{theirs}.norm1", f"{ours}.norm1", width) + affine(f"{theirs}.norm2", f"{ours}.norm2", width)
    for official, name in SHIFT_MAPS:
        result += _pointwise(f"{theirs}.axial_shift.{official}", f"{ours}.mixer.{name}", width, width)
    return [*result, *affine(f"{theirs}.axial_shift.norm1", f"{ours}.mixer.norm1", width),
            *affine(f"{theirs}.axial_shift.norm2", f"{ours}.mixer.norm2", width),
            *_pointwise(f"{theirs}.mlp.fc1", f"{ours}.fc1", width, hidden),
            *_pointwise(f"{theirs}.mlp.fc2", f"{ours}.fc2", hidden, width)]


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official AS-MLP, its sizes from the shapes of ``arrays``."""
    width, in_chans, patch = (size(arrays, "patch_embed.proj.weight", axis) for axis in range(3))
    result = conv("patch_embed.proj", "stem", in_chans, width, patch, bias=True)
    result += affine("patch_embed.norm", "stem_norm", width)
    num_stages = count(arrays, r"layers\.(\d+)\.")
    for s in range(num_stages):
        theirs = f"layers.{s}"
        hidden = size(arrays, f"{theirs}.blocks.0.mlp.fc1.weight", 0)
        for i in range(count(arrays, rf"layers\.{s}\.blocks\.(\d+)\.")):
            result += _block(f"{theirs}.blocks.{i}", f"stages.{s}.{i}", width, hidden)
        if s < num_stages - 1:
            result += affine(f"{theirs}.downsample.norm", f"downsamples.{s}.norm", 4 * width)
            result += _pointwise(f"{theirs}.downsample.reduction", f"downsamples.{s}.reduction", 4 * width, 2 * width,
                                 bias=False)
            width *= 2
    return result + affine("norm", "norm", width) + head(arrays, width)
