"""Weight files of every origin as flat dictionaries of NumPy arrays; the content decides the format.

Needs neither Paddle nor PyTorch, and runs no code from a file (``passl_mixer.pickles``).
"""
import json
import zipfile
from pathlib import Path
from typing import Dict, Optional

import numpy
from safetensors import deserialize

from passl_mixer.errors import BadInput
from passl_mixer.pickles import Reader, array_names, finished, reading
from passl_mixer.weights import torch_files

# Keys of the weights in checkpoints; averaged weights first, as in timm: published accuracies are theirs.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# Google's training state keeps the network below one of these.
GOOGLE_ROOTS = ("params/", "opt/target/", "optimizer/target/")
PADDLE_NAMES = "StructuredToParameterName@@"
SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
               "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
KNOWN = ".npz, .safetensors, PyTorch's .pth, .pt, .bin or .pth.tar, Paddle's .pdparams"


def read_arrays(path) -> Dict[str, numpy.ndarray]:
    """Read the arrays of a weight file.

    Args:
        path: file of NumPy (.npz; Google's nested names keep their "/"), safetensors (of a checkpoint of ours, the
            arrays of the model, ``backbone.*`` and others), PyTorch (zip or legacy) or Paddle (``paddle.save``).
    Returns:
        ``{name: array}``, bfloat16 as float32. 'model', 'state_dict', 'model_ema' and 'state_dict_ema' are unwrapped,
        averaged weights first. A 'module.' before every name is removed.
    Raises:
        BadInput: no such file, an unknown or damaged format, or an object that is neither an array nor a plain
            container (the message names it; none of its code has run).
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path.resolve()} is not a file; expected {KNOWN}")
    with reading(str(path)):
        arrays = _read(path)
    if all(name.startswith("module.") for name in arrays):
        arrays = {name[len("module."):]: value for name, value in arrays.items()}
    return arrays


def _metadata(header: bytes) -> dict:
    return json.loads(header).get("__metadata__") or {}


def own_facts(path) -> Optional[dict]:
    """The metadata of a checkpoint of ours (configuration, step, ...); None for a file of any other origin."""
    with reading(str(path)), open(path, "rb") as file:
        start = file.read(9)
        if start[8:] != b"{":
            return None
        metadata = _metadata(b"{" + file.read(int.from_bytes(start[:8], "little") - 1))
        return json.loads(metadata["passl_mixer"]) if "passl_mixer" in metadata else None


def _read(path: Path) -> Dict[str, numpy.ndarray]:
    with open(path, "rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    if start[8:] == b"{":
        return _read_safetensors(path.read_bytes())
    if torch_files.is_legacy(path):
        return _unwrap(torch_files.read_legacy(path), path)
    if start[:1] == b"\x80":
        return _read_paddle(path)
    raise BadInput(f"{path} is in no format known here, or is cut off; expected {KNOWN}")


def _read_zip(path: Path) -> Dict[str, numpy.ndarray]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    roots = [name[:-len("data.pkl")] for name in names if name.split("/")[-1] == "data.pkl"]
    if roots:
        return _unwrap(torch_files.read_zip(path, min(roots, key=len)), path)
    if not names or not all(name.endswith(".npy") for name in names):
        raise BadInput(f"{path} is a zip file of neither NumPy nor PyTorch; expected {KNOWN}")
    with numpy.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for root in GOOGLE_ROOTS:
        below = {name[len(root):]: value for name, value in arrays.items() if name.startswith(root)}
        arrays = below or arrays
    return arrays


def _read_safetensors(content: bytes) -> Dict[str, numpy.ndarray]:
    arrays = {}
    for name, facts in deserialize(content):
        if facts["dtype"] not in SAFETENSORS:
            raise BadInput(f"array {name!r} is of type {facts['dtype']}, which NumPy does not have")
        value = numpy.frombuffer(facts["data"], SAFETENSORS[facts["dtype"]]).reshape(facts["shape"])
        arrays[name] = torch_files.widen_bfloat16(value) if facts["dtype"] == "BF16" else value
    if "passl_mixer" in _metadata(content[8:8 + int.from_bytes(content[:8], "little")]):
        return {name[len("model/"):]: value for name, value in arrays.items() if name.startswith("model/")}
    return arrays


def _read_paddle(path: Path) -> Dict[str, numpy.ndarray]:
    with open(path, "rb") as file:
        tree = finished(Reader(file, array_names()).load())
    # paddle.save writes bfloat16 as uint16; no network has other uint16 arrays.
    return {name: torch_files.widen_bfloat16(value) if value.dtype == numpy.uint16 else value
            for name, value in _unwrap(tree, path).items()}


def _array(value):
    """A Paddle tensor inside other containers is saved as ``(name, array)``."""
    named = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], numpy.ndarray)
    return value[1] if named else value


def _unwrap(tree, path: Path) -> Dict[str, numpy.ndarray]:
    wrappers = True
    while isinstance(tree, dict) and wrappers:
        wrappers = [key for key in WRAPPERS if isinstance(tree.get(key), dict) and tree[key]]
        tree = tree[wrappers[0]] if wrappers else tree
    if not isinstance(tree, dict):
        raise BadInput(f"{path} holds a {type(tree).__name__}, expected a dictionary of arrays")
    arrays = {str(name): _array(value) for name, value in tree.items() if name != PADDLE_NAMES}
    others = [name for name, value in arrays.items() if not isinstance(value, numpy.ndarray)]
    if others or not arrays:
        words = ", ".join(map(repr, others[:8])) or "nothing"
        raise BadInput(f"{path} holds {words} beside or instead of arrays; expected a dictionary of arrays, or one "
                       f"that keeps it under {', '.join(map(repr, WRAPPERS))}")
    return arrays
