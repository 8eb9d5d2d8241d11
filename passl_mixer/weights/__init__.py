"""Conversion of reference checkpoints to our names and layouts: one key-map file per family.

Works on NumPy arrays; nothing here imports Paddle.
"""
from collections.abc import Mapping
from typing import Dict, Sequence, Tuple

import numpy

from passl_mixer.errors import BadInput, nearest
from passl_mixer.weights import (
    as_mlp,
    conv_mixer,
    conv_mlp,
    cycle_mlp,
    export,
    gmlp,
    keymap,
    mlp_mixer,
    ports,
    resmlp,
    swin,
    vip,
    vit,
)
from passl_mixer.weights.files import read_arrays

# (family, source): from a state dict to its rows
KEY_MAPS = {
    ("mlp_mixer", "timm"): mlp_mixer.rows,
    ("mlp_mixer", "google"): ports.google_rows,  # needs act: gelu_tanh
    ("mlp_mixer", "paddlevit"): ports.in_paddle(mlp_mixer.rows, ports.PADDLEVIT_MIXER),
    ("mlp_mixer", "passl"): ports.in_paddle(mlp_mixer.rows, ports.PASSL_MIXER),
    ("conv_mixer", "timm"): conv_mixer.timm_rows,
    ("conv_mixer", "official"): conv_mixer.official_rows,
    ("conv_mixer", "paddlevit"): ports.in_paddle(conv_mixer.official_rows),
    ("conv_mlp", "official"): conv_mlp.rows,
    ("conv_mlp", "paddlevit"): ports.in_paddle(conv_mlp.rows),
    ("cycle_mlp", "official"): cycle_mlp.rows,
    ("cycle_mlp", "paddlevit"): ports.in_paddle(cycle_mlp.rows),
    ("vip", "official"): vip.rows,
    ("vip", "paddlevit"): ports.in_paddle(vip.rows),
    ("as_mlp", "official"): as_mlp.rows,
    ("vit", "timm"): vit.rows,
    ("swin", "timm"): swin.rows,
    ("resmlp", "timm"): resmlp.timm_rows,
    ("resmlp", "official"): resmlp.official_rows,
    ("resmlp", "paddlevit"): ports.in_paddle(resmlp.timm_rows, ports.PADDLEVIT_MIXER),
    ("gmlp", "timm"): gmlp.rows,
    ("gmlp", "paddlevit"): ports.in_paddle(gmlp.rows, ports.PADDLEVIT_MIXER),
}

# A name that only the state dicts of this family and source have, to recognise them by.
SIGNATURES = {
    "blocks.0.mlp_tokens.fc1.weight": ("mlp_mixer", "timm"),
    "tokenizer.block.1.running_mean": ("conv_mlp", "official"),
    "tokenizer.block.1._mean": ("conv_mlp", "paddlevit"),
    "network.0.0.attn.sfc_h.weight": ("cycle_mlp", "official"),
    "MixerBlock_0/token_mixing/Dense_0/kernel": ("mlp_mixer", "google"),
    "mixer_layers.0.mlp_tokens.fc1.weight": ("mlp_mixer", "paddlevit"),
    "backbone.blocks.0.mlp_tokens.fc1.weight": ("mlp_mixer", "passl"),
    "blocks.0.linear_tokens.weight": ("resmlp", "timm"),
    "blocks.0.gamma_1": ("resmlp", "official"),
    "mixer_layers.0.linear_tokens.weight": ("resmlp", "paddlevit"),
    "mixer_layers.0.mlp_channels.gate.proj.weight": ("gmlp", "paddlevit"),
    "blocks.0.mlp_channels.gate.proj.weight": ("gmlp", "timm"),
    "network.0.0.attn.mlp_h.weight": ("vip", "official"),
    "layers.0.blocks.0.axial_shift.conv1.weight": ("as_mlp", "official"),
    "blocks.0.0.fn.0.weight": ("conv_mixer", "timm"),
    "blocks.0.attn.qkv.weight": ("vit", "timm"),
    "layers.0.blocks.0.attn.qkv.weight": ("swin", "timm"),
    "2.running_mean": ("conv_mixer", "official"),
    "2._mean": ("conv_mixer", "paddlevit"),
}


# Sources with the names of another one, in another layout.
SAME_NAMES = {("cycle_mlp", "paddlevit"): ("cycle_mlp", "official"), ("vip", "paddlevit"): ("vip", "official")}

# Options of our backbone that a source's weights require.
NEEDS = {("mlp_mixer", "google"): {"act": "gelu_tanh"}}


def _check_known(family: str, source: str) -> None:
    families = sorted({known for known, _ in KEY_MAPS})
    if family not in families:
        raise BadInput(f"unknown family {family!r}{nearest(family, families)}")
    sources = [known for of, known in KEY_MAPS if of == family]
    if source not in sources:
        raise BadInput(f"unknown source {source!r} of {family}{nearest(source, sources)}")


def _check_arrays(arrays) -> None:
    if not isinstance(arrays, Mapping) or not arrays:
        raise BadInput("a state dict is a non-empty mapping of names to NumPy arrays, got "
                       f"{'an empty one' if isinstance(arrays, Mapping) else type(arrays).__name__}")
    for name, value in arrays.items():
        if not isinstance(value, numpy.ndarray):
            raise BadInput(f"{name!r} is a {type(value).__name__}, expected a NumPy array; convert the "
                           "tensors, and pass the state dict itself where a checkpoint wraps it in 'model'")


def convert_state_dict(arrays: Dict[str, numpy.ndarray], *, family: str, source: str,
                       allow: Sequence[str] = ()) -> Dict[str, dict]:
    """Convert a reference checkpoint to the names and layouts of our backbone and linear head.

    Args:
        arrays: state dict of the reference (``read_arrays`` reads files).
        family: a family of ``KEY_MAPS``, e.g. "mlp_mixer".
        source: origin of the names, a source of ``KEY_MAPS`` with that family: "timm", "official" (the authors'
            PyTorch code), "google" (flax; build our MlpMixer with ``act: gelu_tanh``), "paddlevit" or "passl".
        allow: shell patterns of names (theirs) that may be missing or unexpected, e.g. ``["head.*"]``.
    Returns:
        ``{"backbone": {...}, "head": {...}}``: float32 arrays under our structured parameter names, for
        ``set_state_dict`` as tensors; the head's are ``fc.weight`` [in, out] and ``fc.bias``.
    Raises:
        BadInput: unknown family or source, a state dict of another family, or arrays that are missing, unexpected or
            wrongly shaped (all are listed).
    """
    _check_known(family, source)
    _check_arrays(arrays)
    arrays = ports.google_names(arrays)
    origins = [signature for name, signature in SIGNATURES.items() if name in arrays]
    if origins and SAME_NAMES.get((family, source), (family, source)) not in origins:
        known = origins[0] in KEY_MAPS
        advice = "pass family={!r}, source={!r}".format(*origins[0]) if known else "there is no key map for it"
        raise BadInput("this is a state dict of {} ({}), not of ".format(*origins[0])
                       + f"{family} ({source}); {advice}")
    return keymap.apply(KEY_MAPS[family, source](arrays), arrays, f"{family} ({source})", allow)


def export_state_dict(state: Dict[str, dict], *, family: str, target: str) -> Dict[str, numpy.ndarray]:
    """Convert our arrays to the names and layouts of a reference: the inverse of ``convert_state_dict``.

    Args:
        state: ``{"backbone": ..., "head": ...}``, arrays under our names; an empty head is left out.
        family: a family of ``KEY_MAPS``.
        target: the reference, a source of ``KEY_MAPS`` with that family, e.g. "timm" or "official".
    Returns:
        The state dict of the reference.
    Raises:
        BadInput: unknown family or target, or a state that is not of that family.
    """
    _check_known(family, target)
    _check_arrays(state.get("backbone"))
    if (family, target) not in export.RENAMES:
        raise BadInput(f"{family} cannot be written for {target!r} yet; weights/export.py needs its names")
    return export.inverse(KEY_MAPS[family, target], export.RENAMES[family, target], state)


def guess_origin(arrays: Dict[str, numpy.ndarray]) -> Tuple[str, str]:
    """``(family, source)`` of a foreign state dict: those of the key map that it fits, with or without classifier.

    Raises:
        BadInput: it fits no key map and has no known name, or fits several.
    """
    _check_arrays(arrays)
    arrays = ports.google_names(arrays)
    fitting = []
    for origin, key_map in KEY_MAPS.items():
        try:
            rows = key_map(arrays)
        except BadInput:  # not this one: it lacks the arrays that the sizes are read from
            continue
        if not keymap.faults(rows, arrays, keymap.classifier(rows)):
            fitting.append(origin)
    # If it fits none, a known name still tells the origin; the conversion then lists the mismatches.
    fitting = fitting or [origin for name, origin in SIGNATURES.items() if name in arrays and origin in KEY_MAPS][:1]
    if len(fitting) != 1:
        words = " or ".join(f"{family} ({source})" for family, source in fitting) or "no family known here"
        raise BadInput(f"the state dict is of {words}, beginning with {', '.join(list(arrays)[:4])}; convert it with "
                       "the right --family and --source")
    return fitting[0]


def convert_backbone(arrays: Dict[str, numpy.ndarray]) -> Tuple[Dict[str, numpy.ndarray], str, str]:
    """Arrays of our backbone from a foreign state dict of any known origin; its classifier may be missing.

    Returns:
        ``(arrays under our names, family, source)``.
    Raises:
        BadInput: as ``guess_origin`` and ``convert_state_dict``.
    """
    family, source = guess_origin(arrays)
    rows = KEY_MAPS[family, source](ports.google_names(arrays))
    converted = convert_state_dict(arrays, family=family, source=source, allow=keymap.classifier(rows))
    return converted["backbone"], family, source


__all__ = ["KEY_MAPS", "NEEDS", "convert_backbone", "convert_state_dict", "export_state_dict", "guess_origin",
           "read_arrays"]
