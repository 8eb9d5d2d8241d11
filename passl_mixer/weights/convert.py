"""Conversion of weight files between origins, for ``passl-mixer convert``. Needs no Paddle."""
import io
from pathlib import Path
from typing import Optional, Sequence

import numpy
from safetensors.numpy import save

from passl_mixer.checkpoint import find_checkpoint, save_checkpoint
from passl_mixer.errors import BadInput
from passl_mixer.files import write_atomic
from passl_mixer.weights import NEEDS, convert_state_dict, export_state_dict, guess_origin, read_arrays
from passl_mixer.weights.files import own_facts

CLASSIFIER = {"fc.weight", "fc.bias"}


def _new_file(path, endings: Sequence[str]) -> Path:
    path = Path(path)
    if path.suffix not in endings:
        raise BadInput(f"the file to write is {str(path)!r}; expected a name that ends with {' or '.join(endings)}")
    if path.exists():
        raise BadInput(f"{path} exists; remove it or choose another name")
    if not path.resolve().parent.is_dir():
        raise BadInput(f"the folder {path.resolve().parent} of the file to write does not exist")
    return path


def import_file(source_file, target_file, *, family: Optional[str] = None, source: Optional[str] = None,
                allow: Sequence[str] = ()) -> str:
    """Write a reference's weights as a checkpoint of ours, for ``pretrained:``, ``train.init_from`` and ``eval``.

    Args:
        source_file: any file that ``weights.read_arrays`` reads.
        target_file: ends with .safetensors; must not exist.
        family: see ``weights.convert_state_dict``; without family and source, the names decide.
        source: origin of the names; given together with ``family``.
        allow: shell patterns of names that may be missing or unexpected.
    Returns:
        A line of text about the written file.
    Raises:
        BadInput: unreadable, of another network, or ``target_file`` exists.
    """
    target = _new_file(target_file, (".safetensors",))
    if (family is None) != (source is None):
        raise BadInput("--family and --source go together; give both or neither")
    if Path(source_file).is_file() and own_facts(source_file) is not None:
        raise BadInput(f"{source_file} is a checkpoint of ours already; give --to to write a reference's file")
    arrays = read_arrays(source_file)
    if family is None:
        family, source = guess_origin(arrays)
    state = convert_state_dict(arrays, family=family, source=source, allow=allow)
    model = {f"{part}.{name}": value for part in ("backbone", "head") for name, value in state[part].items()}
    needs = NEEDS.get((family, source), {})
    save_checkpoint(target, model, {}, {
        "step": 0, "epoch": 0, "converted_from": {"family": family, "source": source, "file": Path(source_file).name},
        "config": {"model": {"backbone": {"name": family, **needs}}}})
    return (f"{target}: {family} ({source}), {len(state['backbone'])} arrays of the backbone, "
            f"{len(state['head'])} of the classifier"
            + "".join(f"; build the backbone with {key}: {value}" for key, value in needs.items()))


def export_file(source_file, target_file, *, family: str, target: str) -> str:
    """Write a checkpoint of ours under a reference's names and in its layouts.

    Args:
        source_file: run folder or checkpoint.
        target_file: ends with .safetensors or .npz; must not exist.
        family: of the checkpoint's backbone, see ``weights.export_state_dict``.
        target: the reference, e.g. "timm" or "official".
    Returns:
        A line of text about the written file; a head that is not a linear classifier is left out.
    Raises:
        BadInput: unreadable, of another network, or ``target_file`` exists.
    """
    path = _new_file(target_file, (".safetensors", ".npz"))
    file = find_checkpoint(source_file)
    if own_facts(file) is None:
        raise BadInput(f"{file} is not a checkpoint of ours; convert it to one first, without --to")
    model = read_arrays(file)
    state = {part: {name[len(part) + 1:]: value for name, value in model.items() if name.startswith(f"{part}.")}
             for part in ("backbone", "head")}
    if set(state["head"]) != CLASSIFIER:
        state["head"] = {}
    arrays = export_state_dict(state, family=family, target=target)
    content = io.BytesIO()
    if path.suffix == ".npz":
        numpy.savez(content, **arrays)
    else:
        content.write(save(arrays))
    write_atomic(path, content.getvalue())
    return f"{path}: {len(arrays)} arrays of {family} as {target} names them" + (
        "" if state["head"] else "; without a classifier: the checkpoint has none")
