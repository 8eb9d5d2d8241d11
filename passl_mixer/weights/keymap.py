"""Rows of key maps, one per array of the reference, and the check of a state dict against them."""
import fnmatch
import re
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy

from passl_mixer.errors import BadInput

# Beginning of our names of the linear head.
HEAD = "head."


class Row(NamedTuple):
    """One array of a reference state dict.

    Attributes:
        theirs: name in the reference.
        ours: structured parameter name; "head.fc.*" for the classifier, "" for an array that is dropped.
        shape: in the reference.
        transpose: whether the reference has [out, in] or [out, in, 1, 1] for our [in, out].
        flat: whether ours has one axis only.
        axes: order of the reference's axes in ours, if it is another one.
    """

    theirs: str
    ours: str
    shape: Tuple[int, ...]
    transpose: bool = False
    flat: bool = False
    axes: Tuple[int, ...] = ()


def affine(theirs: str, ours: str, width: int) -> List[Row]:
    """Rows of a normalisation's weight and bias.

    Args:
        theirs: name of the layer in the reference.
        ours: our name of it.
        width: channels.
    """
    return [Row(f"{theirs}.{part}", f"{ours}.{part}", (width,)) for part in ("weight", "bias")]


def batch_norm(theirs: str, ours: str, width: int) -> List[Row]:
    """Rows of a BatchNorm with its running statistics.

    Args:
        theirs: name of the layer in the reference.
        ours: our name of it.
        width: channels.
    """
    return [*affine(theirs, ours, width), Row(f"{theirs}.running_mean", f"{ours}._mean", (width,)),
            Row(f"{theirs}.running_var", f"{ours}._variance", (width,))]


def linear(theirs: str, ours: str, inputs: int, outputs: int, *, bias: bool = True) -> List[Row]:
    """Rows of a linear map: [out, in] in the reference, [in, out] in ours.

    Args:
        theirs: name of the layer in the reference.
        ours: our name of it.
        inputs: input width.
        outputs: output width.
        bias: whether there is a bias.
    """
    rows = [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs), transpose=True)]
    return rows + ([Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))] if bias else [])


def conv(theirs: str, ours: str, inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> List[Row]:
    """Rows of a convolution, [out, in / groups, k, k] in both.

    Args:
        theirs: name of the layer in the reference.
        ours: our name of it.
        inputs: input channels of a group.
        outputs: output channels.
        kernel: side k.
        bias: whether there is a bias.
    """
    rows = [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs, kernel, kernel))]
    return rows + ([Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))] if bias else [])


def head(arrays: Dict[str, numpy.ndarray], width: int) -> List[Row]:
    """Rows of the classifier ``head`` on ``width`` features; its weight in ``arrays`` has the number of classes."""
    # A missing classifier is listed with whatever else is missing; its size does not matter then.
    num_classes = size(arrays, "head.weight", 0) if "head.weight" in arrays else 0
    return linear("head", "head.fc", width, num_classes)


def size(arrays: Dict[str, numpy.ndarray], name: str, axis: int) -> int:
    """Length of an axis of an array.

    Args:
        arrays: state dict.
        name: of the array.
        axis: number of the axis.
    Raises:
        BadInput: no such array or axis.
    """
    if name not in arrays:
        raise BadInput(f"the state dict has no {name!r}, from which the size of the network is read; "
                       f"it begins with {_some(sorted(arrays))}")
    shape = numpy.shape(arrays[name])
    if axis >= len(shape):
        raise BadInput(f"{name!r} has shape {list(shape)}, expected at least {axis + 1} axes")
    return shape[axis]


def count(arrays: Dict[str, numpy.ndarray], pattern: str) -> int:
    """One more than the largest number that matches the group of ``pattern`` among the names; 0 without a match."""
    matches = [re.match(pattern, name) for name in arrays]
    return max((int(match.group(1)) for match in matches if match), default=-1) + 1


def _some(names: List[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def classifier(rows: List[Row]) -> List[str]:
    """The classifier's names, for ``allow``."""
    return [row.theirs for row in rows if row.ours.startswith(HEAD)]


def faults(rows: List[Row], arrays: Dict[str, numpy.ndarray], allow: Sequence[str] = ()) -> List[str]:
    """Differences between a state dict and the rows.

    Args:
        rows: the expected arrays.
        arrays: the state dict.
        allow: shell patterns of names that may be missing or unexpected.
    Returns:
        Lines of missing, unexpected and wrongly shaped names.
    """
    def listed(names):
        return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)]

    expected = {row.theirs for row in rows}
    lines = []
    missing = listed(row.theirs for row in rows if row.theirs not in arrays)
    unexpected = listed(name for name in arrays if name not in expected)
    if missing:
        lines.append(f"missing: {', '.join(missing)}")
    if unexpected:
        lines.append(f"unexpected: {', '.join(unexpected)}")
    shapes = [f"{row.theirs} is {list(arrays[row.theirs].shape)}, expected {list(row.shape)}"
              for row in rows if row.theirs in arrays and tuple(arrays[row.theirs].shape) != row.shape]
    if shapes:
        lines.append(f"wrongly shaped: {', '.join(shapes)}")
    return lines


def apply(rows: List[Row], arrays: Dict[str, numpy.ndarray], words: str, allow: Sequence[str] = ()) -> Dict[str, dict]:
    """Convert a state dict by the rows of its key map.

    Args:
        rows: the expected arrays.
        arrays: the state dict.
        words: family and source, for messages.
        allow: shell patterns of names that may be missing or unexpected.
    Returns:
        ``{"backbone": ..., "head": ...}``, contiguous float32 arrays under our names.
    Raises:
        BadInput: missing, unexpected or wrongly shaped arrays; all are listed.
    """
    lines = faults(rows, arrays, allow)
    if lines:
        raise BadInput(f"not a {words} state dict; " + "; ".join(lines))
    result: Dict[str, dict] = {"backbone": {}, "head": {}}
    for row in rows:
        if not row.ours or row.theirs not in arrays:
            continue
        value = arrays[row.theirs].astype(numpy.float32)
        if row.transpose:
            value = value.reshape(row.shape[:2]).T
        if row.flat:
            value = value.reshape(-1)
        if row.axes:
            value = value.transpose(row.axes)
        part, name = ("head", row.ours[len(HEAD):]) if row.ours.startswith(HEAD) else ("backbone", row.ours)
        result[part][name] = numpy.ascontiguousarray(value)
    return result
