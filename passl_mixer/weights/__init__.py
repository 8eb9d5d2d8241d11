"""Reference checkpoints under our names and layouts: one key-map file per family.

Works on NumPy arrays and does not import Paddle, so that a checkpoint is read and checked without one.
"""
from collections.abc import Mapping
from typing import Dict

import numpy

from passl_mixer.errors import BadInput, nearest
from passl_mixer.weights import conv_mlp, cycle_mlp, keymap, mlp_mixer

# (family, source): the rows its state dict holds
KEY_MAPS = {
    ("mlp_mixer", "timm"): mlp_mixer.rows,
    ("conv_mlp", "official"): conv_mlp.rows,
    ("cycle_mlp", "official"): cycle_mlp.rows,
}

# A name that only this family's state dict of this source has: what a foreign state dict is recognised by.
SIGNATURES = {
    "blocks.0.mlp_tokens.fc1.weight": ("mlp_mixer", "timm"),
    "tokenizer.block.0.weight": ("conv_mlp", "official"),
    "network.0.0.attn.sfc_h.weight": ("cycle_mlp", "official"),
    "MixerBlock_0/token_mixing/Dense_0/kernel": ("mlp_mixer", "Google"),
    "mixer_layers.0.mlp_tokens.fc1.weight": ("mlp_mixer", "PaddleViT"),
    "backbone.blocks.0.mlp_tokens.fc1.weight": ("mlp_mixer", "PASSL"),
    "blocks.0.linear_tokens.weight": ("resmlp", "timm"),
    "blocks.0.gamma_1": ("resmlp", "official"),
    "blocks.0.mlp_channels.gate.proj.weight": ("gmlp", "timm"),
    "network.0.0.attn.mlp_h.weight": ("vip", "official"),
    "layers.0.blocks.0.axial_shift.conv1.weight": ("as_mlp", "official"),
    "blocks.0.0.fn.0.weight": ("conv_mixer", "timm"),
}


def convert_state_dict(arrays: Dict[str, numpy.ndarray], *, family: str, source: str) -> Dict[str, dict]:
    """Rename and re-lay a reference checkpoint for our backbone and linear head.

    Args:
        arrays: state dict of the reference, in its names and layouts.
        family: "mlp_mixer", "conv_mlp" or "cycle_mlp".
        source: whose names they are: "timm" for mlp_mixer, "official" for conv_mlp and cycle_mlp.
    Returns:
        ``{"backbone": {...}, "head": {...}}``: float32 arrays under our structured parameter names, for
        ``set_state_dict`` as tensors; the head's are ``fc.weight`` [in, out] and ``fc.bias``.
    Raises:
        BadInput: unknown family or source, a state dict of another family, or arrays that are missing,
            unexpected or wrongly shaped (all are listed).
    """
    families = sorted({known for known, _ in KEY_MAPS})
    if family not in families:
        raise BadInput(f"unknown family {family!r}{nearest(family, families)}")
    sources = [known for of, known in KEY_MAPS if of == family]
    if source not in sources:
        raise BadInput(f"unknown source {source!r} of {family}{nearest(source, sources)}")
    if not isinstance(arrays, Mapping) or not arrays:
        raise BadInput("a state dict is a non-empty mapping of names to NumPy arrays, got "
                       f"{'an empty one' if isinstance(arrays, Mapping) else type(arrays).__name__}")
    for name, value in arrays.items():
        if not isinstance(value, numpy.ndarray):
            raise BadInput(f"{name!r} is a {type(value).__name__}, expected a NumPy array; convert the "
                           "tensors, and pass the state dict itself where a checkpoint wraps it in 'model'")
    found = [signature for name, signature in SIGNATURES.items() if name in arrays]
    if found and (family, source) not in found:
        known = found[0] in KEY_MAPS
        advice = "pass family={!r}, source={!r}".format(*found[0]) if known else "there is no key map for it"
        raise BadInput("this is a state dict of {} ({}), not of ".format(*found[0])
                       + f"{family} ({source}); {advice}")
    return keymap.apply(KEY_MAPS[family, source](arrays), arrays, f"{family} ({source})")
