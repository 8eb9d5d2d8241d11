"""Run folders and checkpoints: written atomically, resumed exactly, read without running code from the file.

A checkpoint is one safetensors file. Tensors have the names ``model/<structured name>`` and
``optim/<structured name>/<slot>``; everything else is JSON text in the file's metadata. A reader sees either the old
file or the whole new one.
"""
import json
import re
import time
from pathlib import Path
from typing import Mapping, Optional

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from passl_mixer.config import Config, dump, plain, with_defaults
from passl_mixer.errors import BadInput
from passl_mixer.files import write_atomic

_STEP_FILE = re.compile(r"^step_(\d+)\.safetensors$")
# Keys that may change when a run is continued: they do not change the result.
_FREE_KEYS = ("output_dir", "train.device", "train.max_steps", "train.log_every_steps", "train.checkpoint_every_epochs",
              "train.checkpoint_every_steps", "train.keep_checkpoints", "train.visualdl", "train.init_from",
              "train.collapse_threshold", "train.recompute", "train.compile", "train.channels_last", "data.num_workers",
              "evaluate", "data.dataset.root", "data.dataset.file", "data.dataset.merges", "data.eval_dataset")


def save_checkpoint(path: Path, model: Mapping, optim: Mapping, meta: Mapping) -> None:
    """Save arrays and metadata as one file, atomically.

    Args:
        path: the file.
        model: structured name -> NumPy array.
        optim: structured name/slot -> NumPy array.
        meta: step, epoch, config and others, as JSON takes them.
    """
    tensors = {f"model/{k}": np.ascontiguousarray(v) for k, v in model.items()}
    tensors.update({f"optim/{k}": np.ascontiguousarray(v) for k, v in optim.items()})
    write_atomic(path, save(tensors, metadata={"passl_mixer": json.dumps(meta)}))


def read_checkpoint(path: Path) -> tuple:
    """``(model, optim, meta)`` of a checkpoint file, as ``save_checkpoint`` takes them.

    Raises:
        BadInput: the file is not a checkpoint of this package, or is damaged.
    """
    model, optim = {}, {}
    try:
        with safe_open(str(path), framework="np") as file:
            facts = (file.metadata() or {}).get("passl_mixer")
            if facts is None:
                raise BadInput(f"{path} is a safetensors file but not a checkpoint of passl_mixer")
            for key in file.keys():
                kind, _, name = key.partition("/")
                {"model": model, "optim": optim}[kind][name] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be read as a checkpoint ({error}); take another one of that folder") from None
    return model, optim, json.loads(facts)


def checkpoints_of(folder: Path) -> list:
    """Paths of a run folder's checkpoints, oldest first."""
    steps = [(int(m.group(1)), p) for p in (folder / "checkpoints").glob("step_*") if (m := _STEP_FILE.match(p.name))]
    return [p for _, p in sorted(steps)]


def find_checkpoint(where) -> Path:
    """The newest checkpoint of a run folder, or ``where`` itself if it is a file.

    Raises:
        BadInput: ``where`` has no checkpoint or does not exist.
    """
    path = Path(where)
    if path.is_file():
        return path
    saved = checkpoints_of(path)
    if not saved:
        exists = "holds no checkpoints/step_*.safetensors" if path.is_dir() else "does not exist"
        raise BadInput(f"no checkpoint: {path.resolve()} {exists}; give a run folder or a .safetensors file")
    return saved[-1]


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints of a run folder."""
    for old in checkpoints_of(folder)[:-keep]:
        old.unlink()


def open_run(config: Config, resume: bool) -> Optional[Path]:
    """Decide whether the run folder of a configuration starts a run or continues one.

    Args:
        config: the resolved configuration; ``output_dir`` is the folder.
        resume: continue the run of the folder, if there is one.
    Returns:
        The checkpoint to continue from; None to start.
    Raises:
        BadInput: the folder has a run and ``resume`` is false, or has a run of another configuration.
    """
    folder = Path(config.output_dir)
    saved = checkpoints_of(folder)
    if not (folder / "log.jsonl").exists() and not saved:
        return None
    if not resume:
        raise BadInput(f"{folder} already holds a run ({len(saved)} checkpoint(s)); continue it with --resume, "
                       "or start another with -o output_dir=runs/another_name")
    if not saved:
        return None
    _, _, meta = read_checkpoint(saved[-1])
    differing = _differences(with_defaults(meta["config"]), plain(config))
    if differing:
        raise BadInput(f"{folder} holds a run with another configuration: {'; '.join(differing)}. Give the same "
                       "values to continue it, or -o output_dir=runs/another_name to start another")
    return saved[-1]


def _flat(tree: Mapping, prefix: str = "") -> dict:
    leaves = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        leaves.update(_flat(value, path + ".") if isinstance(value, Mapping) else {path: value})
    return leaves


def _differences(old: Mapping, new: Mapping) -> list:
    old, new = _flat(old), _flat(new)

    def free(key):
        return any(key == f or key.startswith(f + ".") for f in _FREE_KEYS)

    return [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in sorted({*old, *new})
            if not free(key) and old.get(key) != new.get(key)]


def write_config(config: Config, versions: Mapping) -> None:
    """Write the resolved configuration, with the versions as comments, to ``config.yaml`` of the run folder."""
    folder = Path(config.output_dir)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    facts = "\n".join(f"# {key}: {value}" for key, value in versions.items())
    header = f"# resolved configuration, {time.strftime('%Y-%m-%d %H:%M:%S')}\n{facts}\n"
    write_atomic(folder / "config.yaml", (header + dump(config)).encode())


def arrays_of(layer) -> dict:
    """A layer's parameters and buffers as ``{structured name: NumPy array}``."""
    return {name: value.numpy() for name, value in layer.state_dict().items()}


def load_arrays(layer, arrays: Mapping, what: str) -> None:
    """Load arrays into a layer; every name and shape must agree.

    Args:
        layer: changed in place, or not at all.
        arrays: structured name -> NumPy array.
        what: origin of the arrays, for messages.
    Raises:
        BadInput: arrays that are missing, unexpected or wrongly shaped; the first of each kind are listed.
    """
    import paddle

    own = layer.state_dict()
    problems = [f"missing: {k}" for k in own if k not in arrays][:3]
    problems += [f"unexpected: {k}" for k in arrays if k not in own][:3]
    problems += [f"{k} is {list(arrays[k].shape)}, expected {list(own[k].shape)}" for k in own
                 if k in arrays and list(arrays[k].shape) != list(own[k].shape)][:3]
    if problems:
        raise BadInput(f"{what} is a checkpoint of another model: {'; '.join(problems)}")
    layer.set_state_dict({k: paddle.to_tensor(arrays[k]) for k in own})


def load_encoder(path, encoder, prefix: str = "backbone.") -> dict:
    """Load the encoder's weights out of a run's checkpoint.

    Args:
        path: run folder or checkpoint file.
        encoder: the backbone to load them into.
        prefix: of the encoder's names in the method.
    Returns:
        The checkpoint's metadata (step, epoch, config).
    Raises:
        BadInput: no checkpoint, or one of another model.
    """
    file = find_checkpoint(path)
    model, _, meta = read_checkpoint(file)
    own = {k[len(prefix):]: v for k, v in model.items() if k.startswith(prefix)}
    saved = meta["config"]["model"]["backbone"]["name"]
    load_arrays(encoder, own, f"{file} (backbone {saved!r})")
    return meta
