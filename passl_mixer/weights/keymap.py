"""What the key maps of all families share: one row per array of the reference, and the check against it."""
import fnmatch
import re
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy

from passl_mixer.errors import BadInput

# Rows beginning with this go to the linear head.
HEAD = "head."


class Row(NamedTuple):
    """One array of a reference state dict.

    theirs: name in the reference; ours: structured parameter name, "head.fc.*" for the classifier, "" for an
    array that is dropped; shape: in the reference; transpose: whether the reference keeps [out, in], or
    [out, in, 1, 1], where we keep [in, out]; flat: whether ours has one axis only; axes: the order of the
    reference's axes in ours, where it is another one of several.
    """

    theirs: str
    ours: str
    shape: Tuple[int, ...]
    transpose: bool = False
    flat: bool = False
    axes: Tuple[int, ...] = ()


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


def classifier(rows: List[Row]) -> List[str]:
    """The classifier's names, for ``allow``."""
    return [row.theirs for row in rows if row.ours.startswith(HEAD)]


def faults(rows: List[Row], arrays: Dict[str, numpy.ndarray], allow: Sequence[str] = ()) -> List[str]:
    """What keeps a state dict from holding exactly the rows: lines of missing, unexpected, wrongly shaped names.

    Names that match one of the shell patterns ``allow`` may be missing or unexpected.
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
    """Rename and re-lay every array after checking that the state dict holds exactly the rows.

    Args:
        rows: what the state dict must hold.
        arrays: the state dict.
        words: what it is, for messages.
        allow: shell patterns of names that may be missing or unexpected.
    Returns:
        ``{"backbone": ..., "head": ...}``, contiguous float32 arrays under our names.
    Raises:
        BadInput: missing, unexpected or wrongly shaped arrays, all of them listed.
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
