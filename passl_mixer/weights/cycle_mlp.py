"""Key map of the official CycleMLP (ShoufaChen/CycleMLP, cycle_mlp.py) to ``backbones.cycle_mlp``.

The official ``sfc_h`` has a (1, 3) kernel and reads along the width, ``sfc_w`` along the height. Their ``offset``
buffers are constants here: they are compared with the published pattern, then dropped.
"""
from typing import Dict, List

import numpy

from passl_mixer.errors import BadInput
from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size

# Official name, our name, and the coordinate of the (dy, dx) pairs that is not 0.
CYCLE_FCS = (("sfc_h", "along_width", 1), ("sfc_w", "along_height", 0))


def published_offset(width: int, moving: int) -> numpy.ndarray:
    """Offsets [1, 2 C, 1, 1] of the official CycleFC: 0, +1, -1 in turn in one coordinate (0: dy, 1: dx)."""
    offset = numpy.zeros((width, 2), numpy.float32)
    offset[1::3, moving], offset[2::3, moving] = 1.0, -1.0
    return offset.reshape(1, 2 * width, 1, 1)


def _mixer(arrays: Dict[str, numpy.ndarray], theirs: str, ours: str, width: int) -> List[Row]:
    result = linear(f"{theirs}.mlp_c", f"{ours}.channel", width, width, bias=False)
    for official, name, moving in CYCLE_FCS:
        # A 1 x 1 convolution there, [out, in, 1, 1].
        result += [Row(f"{theirs}.{official}.weight", f"{ours}.{name}.weight", (width, width, 1, 1), True),
                   Row(f"{theirs}.{official}.bias", f"{ours}.{name}.bias", (width,)),
                   Row(f"{theirs}.{official}.offset", "", (1, 2 * width, 1, 1))]
        offset = arrays.get(f"{theirs}.{official}.offset")
        expected = published_offset(width, moving)
        if offset is not None and offset.shape == expected.shape and not numpy.array_equal(offset, expected):
            raise BadInput(f"{theirs}.{official}.offset is not the published pattern of shifts 0, +1, -1; "
                           "our CycleFC cannot express this network")
    hidden = width // 4
    return [*result, *linear(f"{theirs}.reweight.fc1", f"{ours}.reweight1", width, hidden),
            *linear(f"{theirs}.reweight.fc2", f"{ours}.reweight2", hidden, 3 * width),
            *linear(f"{theirs}.proj", f"{ours}.proj", width, width)]


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official CycleMLP, its sizes from the shapes of ``arrays``; checks the offsets."""
    first, in_chans, kernel = (size(arrays, "patch_embed.proj.weight", axis) for axis in range(3))
    result = conv("patch_embed.proj", "stem", in_chans, first, kernel, bias=True)
    # network alternates stages (even) and down-samplings (odd).
    num_stages = max(1, (count(arrays, r"network\.(\d+)\.") + 1) // 2)
    for s in range(num_stages):
        theirs = f"network.{2 * s}"
        hidden, width = (size(arrays, f"{theirs}.0.mlp.fc1.weight", axis) for axis in (0, 1))
        for i in range(count(arrays, rf"network\.{2 * s}\.(\d+)\.")):
            block, ours = f"{theirs}.{i}", f"stages.{s}.{i}"
            result += affine(f"{block}.norm1", f"{ours}.norm1", width)
            result += affine(f"{block}.norm2", f"{ours}.norm2", width)
            result += _mixer(arrays, f"{block}.attn", f"{ours}.mixer", width)
            result += linear(f"{block}.mlp.fc1", f"{ours}.mlp.fc1", width, hidden)
            result += linear(f"{block}.mlp.fc2", f"{ours}.mlp.fc2", hidden, width)
        if s < num_stages - 1:
            after = size(arrays, f"network.{2 * s + 2}.0.mlp.fc1.weight", 1)
            result += conv(f"network.{2 * s + 1}.proj", f"downsamples.{s}", width, after, 3, bias=True)
    return result + affine("norm", "norm", width) + head(arrays, width)
