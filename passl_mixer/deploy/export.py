"""Export of a trained network as a program that runs without this package's Python code.

An exported folder has Paddle's program (``model.json`` on Paddle 3, ``model.pdmodel`` on 2.6), its parameters
(``model.pdiparams``) and ``export.json``: inputs, outputs and how it was made. Before the folder appears,
``predictor.py`` runs the program, and its outputs are compared with the network's. oneDNN computes the operators for
which this was correct and fastest on the exporting machine.

Shapes: B images [B, C, H, W], float32.
"""
import json
import os
import shutil
import time
from pathlib import Path
from typing import Optional

import numpy as np
import paddle
from paddle import nn

from passl_mixer import runtime
from passl_mixer.build import build_untrained, resolve
from passl_mixer.checkpoint import find_checkpoint, load_arrays, load_encoder, read_checkpoint
from passl_mixer.config import Config, plain
from passl_mixer.data import build_views
from passl_mixer.deploy.forms import for_program
from passl_mixer.deploy.predictor import FACTS, OPERATORS, PROGRAMS, load_exported, my_program, open_program
from passl_mixer.errors import BadInput, first_line, nearest
from passl_mixer.files import write_atomic
from passl_mixer.layers.group_norm import GroupNorm1
from passl_mixer.surgery.resolution import resize_tokens

__all__ = ["batch_of", "export_checkpoint", "export_network", "load_exported"]

WHAT = ("features", "logits", "maps")
TOLERANCE = 1e-4                                # of the comparison at export, relative to the largest output
TRIAL_IMAGES, TRIALS = 4, 3                     # images of a timing if the batch is free, and number of timings


class _Network(nn.Layer):
    """The exported part of a network as one layer."""

    def __init__(self, backbone, head, what: str):
        super().__init__()
        self.backbone, self.what = backbone, what
        self.head = head if what == "logits" else None

    def forward(self, images):
        if self.what == "maps":
            return self.backbone.feature_maps(images)
        features = self.backbone(images)
        return features if self.head is None else self.head(features)


def onednn_breaks(network) -> str:
    """The reason why oneDNN must not run a network; empty if there is none."""
    kinds = (nn.layer.norm._BatchNormBase, nn.GroupNorm)
    for name, layer in network.named_sublayers():
        if isinstance(layer, kinds) and layer._data_format == "NHWC" and not isinstance(layer, GroupNorm1):
            return f"{name} normalises maps [B, H, W, C], which Paddle's oneDNN computes wrongly"
    return ""


def export_network(backbone, folder, *, head=None, what: str = "features", img_size: int, batch: Optional[int] = None,
                   onednn: bool = True, name: str = "", facts: Optional[dict] = None) -> str:
    """Export a network as a program.

    Args:
        backbone: any backbone of this package; set to evaluation mode.
        folder: the folder to write; must not exist.
        head: classifier on its features; needed for "logits".
        what: "features" [B, num_features], "logits" [B, head.out_features] or "maps", the list of ``feature_maps``.
        img_size: height and width of the images, in pixels.
        batch: images per call; None: any number.
        onednn: whether the predictor may use oneDNN, unless it is known to break the network.
        name: of the backbone, for messages.
        facts: more entries for ``export.json``, as JSON takes them.
    Returns:
        A line of text about the export.
    Raises:
        BadInput: the folder exists, wrong ``what``, or a network that Paddle cannot export; no folder is left.
    """
    folder = Path(folder)
    if what not in WHAT:
        raise BadInput(f"what to export is {what!r}{nearest(what, WHAT)}; expected features, logits or maps")
    if (what == "logits") != (head is not None):
        raise BadInput("logits, and nothing else, are exported with a head; give both or neither")
    if folder.exists():
        raise BadInput(f"{folder} exists; remove it or choose another folder")
    network = _Network(backbone, head, what)
    network.eval()
    why_not = onednn_breaks(network) if onednn else "it was exported so"
    shape = [batch, backbone.in_chans, img_size, img_size]
    everything = {"passl_mixer_export": 1, "what": what, "backbone": {"name": name}, "input_shape": shape,
                  "num_features": backbone.num_features, "num_classes": None if head is None else head.out_features,
                  "onednn": not why_not, "onednn_why_not": why_not, **(facts or {}), "versions": runtime.versions()}
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        _save(network, temporary, shape, name)
        operators, error = _choose(network, temporary, everything)
        write_atomic(temporary / FACTS, (json.dumps({**everything, "operators": operators}, indent=2) + "\n").encode())
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return (f"{folder}: {what} of {name or type(backbone).__name__} for images {shape[1:]}, batch {batch or 'any'}; "
            f"outputs agree with the network's to {error:.1e}; " + (f"without oneDNN: {why_not}" if why_not else
                                                                     f"computed by oneDNN: {operators}"))


def batch_of(text: str) -> Optional[int]:
    """The value of ``--batch``: a number, or None for "dynamic".

    Raises:
        BadInput: any other text.
    """
    if text != "dynamic" and not (text.isdigit() and int(text) > 0):
        raise BadInput(f"--batch is {text!r}; expected dynamic, or a number of images above 0")
    return None if text == "dynamic" else int(text)


def _save(network, folder: Path, shape: list, name: str) -> None:
    form = _Network(for_program(network.backbone), network.head, network.what)
    try:
        program = paddle.jit.to_static(form, full_graph=True,
                                       input_spec=[paddle.static.InputSpec(list(shape), "float32", name="images")])
        program.eval()
        paddle.jit.save(program, str(folder / "model"))
    except Exception as error:                  # any error of Paddle's tracer
        raise BadInput(f"backbone {name!r} cannot be exported by this Paddle ({paddle.__version__}): "
                       f"{first_line(error)}") from error


def _choose(network, folder: Path, facts: dict) -> tuple:
    """``(operators, error)``: the operators that oneDNN computes correctly and fastest, and the error of the outputs.

    The error is the largest difference between program and network on noise, relative to the largest output.
    """
    shape = facts["input_shape"]
    images = np.random.default_rng(0).standard_normal([shape[0] or TRIAL_IMAGES, *shape[1:]]).astype("float32")
    with paddle.no_grad():
        expected = network(paddle.to_tensor(images))
    program, correct, reason = my_program(folder), {}, "its outputs are wrong"
    for operators in _candidates(facts["onednn"], program):
        try:
            loaded = open_program(program, facts, operators)
            error = _error(loaded(images), expected)
        except (RuntimeError, ValueError) as wrong:
            reason = first_line(wrong)
            continue
        if error <= TOLERANCE:
            correct[operators] = (loaded, error)
        else:
            reason = f"the program's outputs differ from the network's by {error:.1e} of the largest"
    if not correct:
        raise BadInput(f"backbone {facts['backbone']['name']!r} cannot be exported by this Paddle "
                       f"({paddle.__version__}): {reason}")
    seconds = dict.fromkeys(correct, float("inf"))
    for operators in list(correct) * (TRIALS if len(correct) > 1 else 0):           # in turns
        started = time.perf_counter()
        correct[operators][0](images)
        seconds[operators] = min(seconds[operators], time.perf_counter() - started)
    fastest = min(seconds, key=seconds.get)
    return fastest, correct[fastest][1]


def _candidates(onednn: bool, program: Path) -> tuple:
    """Operators to try; oneDNN's padding of maps [B, H, W, C] corrupts the memory of the process on Paddle 3."""
    if not onednn:
        return ("none",)
    if program.name != PROGRAMS[0]:
        return ("all", "none")
    text = program.read_bytes()
    return OPERATORS[1:] if b'.pad3d"' in text or b'.pad"' in text else OPERATORS


def _error(outputs, expected) -> float:
    pairs = zip(outputs, expected) if isinstance(outputs, list) else [(outputs, expected)]
    return max(float(np.abs(o - e.numpy()).max() / max(np.abs(e.numpy()).max(), 1e-30)) for o, e in pairs)


def export_checkpoint(config: Config, path, folder, *, what: str = "features", img_size: Optional[int] = None,
                      batch: Optional[int] = None, onednn: bool = True) -> str:
    """Export the encoder of a checkpoint, with its classifier for "logits".

    Args:
        config: the run's configuration.
        path: run folder or checkpoint.
        folder, what, batch, onednn: as in ``export_network``.
        img_size: height and width in pixels; None: those of the evaluation views. A backbone of another size is adapted
            (``passl_mixer.resize_tokens``).
    Returns:
        A line of text about the export.
    Raises:
        BadInput: no checkpoint, one of another model, logits of a method without classifier, or as ``export_network``.
    """
    runtime.select_device("cpu")
    config = resolve(config)
    if what == "logits" and config.model.method.name != "supervised":
        raise BadInput(f"method {config.model.method.name!r} trains no classifier; export features or maps instead of "
                       "logits")
    views, method = build_views(config.data.eval_views), build_untrained(config)
    backbone, head = method.encoder, method.head if what == "logits" else None
    meta = load_encoder(path, backbone)
    if head is not None:
        model = read_checkpoint(find_checkpoint(path))[0]
        load_arrays(head, {k[len("head."):]: v for k, v in model.items() if k.startswith("head.")}, str(path))
    size = views.img_size if img_size is None else img_size
    if backbone.img_size is not None and tuple(backbone.img_size) != (size, size):
        backbone = resize_tokens(backbone, size)
    facts = {"mean": list(views.mean), "std": list(views.std), "backbone": plain(config.model.backbone),
             "step": meta["step"], "epoch": meta["epoch"]}
    return export_network(backbone, folder, head=head, what=what, img_size=size, batch=batch, onednn=onednn,
                          name=config.model.backbone.name, facts=facts)
