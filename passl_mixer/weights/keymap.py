"""What the key maps of all families share: one row per array of the reference, and the check against it."""
import re
from typing import Dict, List, NamedTuple, Tuple

import numpy

from passl_mixer.errors import BadInput

# Rows beginning with this go to the linear head.
HEAD = "head."


class Row(NamedTuple):
    """One array of a reference state dict.

    theirs: name in the reference; ours: structured parameter name, "head.fc.*" for the classifier, "" for an
    array that is dropped; shape: in the reference; transpose: whether the reference keeps [out, in], or
    [out, in, 1, 1], where we keep [in, out].
    """

    theirs: str
    ours: str
    shape: Tuple[int, ...]
    transpose: bool = False


def affine(theirs: str, ours: str, width: int) -> List[Row]:
    """Rows of a normalisation's weight and bias."""
    return [Row(f"{theirs}.{part}", f"{ours}.{part}", (width,)) for part in ("weight", "bias")]


def batch_norm(theirs: str, ours: str, width: int) -> List[Row]:
    """Rows of a BatchNorm with its running statistics."""
    return [*affine(theirs, ours, width), Row(f"{theirs}.running_mean", f"{ours}._mean", (width,)),
            Row(f"{theirs}.running_var", f"{ours}._variance", (width,))]


def linear(theirs: str, ours: str, inputs: int, outputs: int, *, bias: bool = True) -> List[Row]:
    """Rows of a linear map: [out, in] there, [in, out] here."""
    rows = [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs), transpose=True)]
    return rows + ([Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))] if bias else [])


def conv(theirs: str, ours: str, inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> List[Row]:
    """Rows of a convolution; both sides keep [out, in / groups, k, k]."""
    rows = [Row(f"{theirs}.weight", f"{ours}.weight", (outputs, inputs, kernel, kernel))]
    return rows + ([Row(f"{theirs}.bias", f"{ours}.bias", (outputs,))] if bias else [])


def head(arrays: Dict[str, numpy.ndarray], width: int) -> List[Row]:
    """Rows of the classifier ``head``, whose number of classes is read off its weight."""
    # A missing classifier is listed with whatever else is missing; its size does not matter then.
    num_classes = size(arrays, "head.weight", 0) if "head.weight" in arrays else 0
    return linear("head", "head.fc", width, num_classes)


def size(arrays: Dict[str, numpy.ndarray], name: str, axis: int) -> int:
    """Length of one axis of an array that the structure is read from."""
    if name not in arrays:
        raise BadInput(f"the state dict has no {name!r}, from which the size of the network is read; "
                       f"it begins with {_some(sorted(arrays))}")
    shape = numpy.shape(arrays[name])
    if axis >= len(shape):
        raise BadInput(f"{name!r} has shape {list(shape)}, expected at least {axis + 1} axes")
    return shape[axis]


def count(arrays: Dict[str, numpy.ndarray], pattern: str) -> int:
    """One more than the largest number that ``pattern``'s group takes among the names."""
    found = [re.match(pattern, name) for name in arrays]
    return max((int(match.group(1)) for match in found if match), default=-1) + 1


def _some(names: List[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def apply(rows: List[Row], arrays: Dict[str, numpy.ndarray], words: str) -> Dict[str, dict]:
    """Rename and re-lay every array after checking that the state dict holds exactly the rows.

    Args:
        rows: what the state dict must hold.
        arrays: the state dict.
        words: what it is, for messages.
    Returns:
        ``{"backbone": ..., "head": ...}``, contiguous float32 arrays under our names.
    Raises:
        BadInput: missing, unexpected or wrongly shaped arrays, all of them listed.
    """
    expected = {row.theirs: row for row in rows}
    lines = []
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    if missing:
        lines.append(f"missing: {', '.join(missing)}")
    if unexpected:
        lines.append(f"unexpected: {', '.join(unexpected)}")
    shapes = [f"{row.theirs} is {list(arrays[row.theirs].shape)}, expected {list(row.shape)}"
              for row in rows if row.theirs in arrays and tuple(arrays[row.theirs].shape) != row.shape]
    if shapes:
        lines.append(f"wrongly shaped: {', '.join(shapes)}")
    if lines:
        raise BadInput(f"not a {words} state dict; " + "; ".join(lines))
    result: Dict[str, dict] = {"backbone": {}, "head": {}}
    for row in rows:
        if not row.ours:
            continue
        value = arrays[row.theirs].astype(numpy.float32)
        if row.transpose:
            value = value.reshape(row.shape[:2]).T
        part, name = ("head", row.ours[len(HEAD):]) if row.ours.startswith(HEAD) else ("backbone", row.ours)
        result[part][name] = numpy.ascontiguousarray(value)
    return result
