"""Our networks in the names and layouts of their references: the inverse of the key maps.

Only names are listed here; transposes and reshapes follow from the rows of the key map.
"""
import re
from typing import Callable, Dict, List

import numpy

from passl_mixer.errors import BadInput
from passl_mixer.weights.as_mlp import SHIFT_MAPS
from passl_mixer.weights.cycle_mlp import CYCLE_FCS, published_offset
from passl_mixer.weights.keymap import HEAD, Row, count
from passl_mixer.weights.ports import PADDLEVIT_MIXER, PASSL_MIXER, STATISTICS

TORCH = [(re.escape(ours) + "$", theirs) for theirs, ours in STATISTICS] + [(r"^head\.fc\.", "head.")]
PADDLE = [(r"^head\.fc\.", "head.")]


def _beginnings(pairs) -> list:
    return [("^" + re.escape(reference), port) for reference, port in pairs]


def _mixer(names) -> list:
    return [(r"^stem\.", "stem.proj."), (r"\.token_mlp\.", ".mlp_tokens."), (r"\.channel_mlp\.", ".mlp_channels.")]


def _google_mixer(names) -> list:
    return [(r"^head\.fc\.", "head/"), (r"^(stem|head)[./]weight$", r"\1/kernel"), (r"^stem\.bias$", "stem/bias"),
            (r"^norm\.", "pre_head_layer_norm/"), (r"^blocks\.(\d+)\.", r"MixerBlock_\1/"),
            (r"/norm1\.", "/LayerNorm_0/"), (r"/norm2\.", "/LayerNorm_1/"), (r"(norm|Norm_\d)/weight$", r"\1/scale"),
            (r"(token|channel)_mlp\.fc1\.", r"\1_mixing/Dense_0/"),
            (r"(token|channel)_mlp\.fc2\.", r"\1_mixing/Dense_1/"), (r"/weight$", "/kernel")]


def _conv_mlp(names) -> list:
    return [(r"^tokenizer\.", "tokenizer.block."), (r"^conv_blocks\.", "conv_stages.conv_blocks."),
            (r"^downsample\.", "conv_stages.downsample."),
            (r"^(stages\.\d+)\.downsample\.", r"\1.downsample_mlp.downsample.")]


def _network(names) -> list:
    """CycleMLP and ViP: stages and the down-samplings between them are numbered together."""
    downs = sorted({int(m.group(1)) for m in (re.match(r"downsamples\.(\d+)\.", name) for name in names) if m})

    def stage(match):
        s = int(match.group(1))
        return f"network.{s + sum(d < s for d in downs)}."

    def down(match):
        d = int(match.group(1))
        return f"network.{d + 1 + sum(other < d for other in downs)}.proj."

    return [(r"^stem\.", "patch_embed.proj."), (r"^stages\.(\d+)\.", stage), (r"^downsamples\.(\d+)\.", down),
            (r"\.mixer\.reweight(\d)\.", r".attn.reweight.fc\1."), (r"\.mixer\.", ".attn."),
            (r"\.attn\.channel\.", ".attn.mlp_c.")]


def _cycle_mlp(names) -> list:
    return _network(names) + [(rf"\.attn\.{ours}\.", f".attn.{theirs}.") for theirs, ours, _ in CYCLE_FCS]


def _vip(names) -> list:
    return _network(names) + [(r"\.attn\.along_height\.", ".attn.mlp_h."), (r"\.attn\.along_width\.", ".attn.mlp_w.")]


def _as_mlp(names) -> list:
    return [(r"^stem\.", "patch_embed.proj."), (r"^stem_norm\.", "patch_embed.norm."),
            (r"^stages\.(\d+)\.(\d+)\.", r"layers.\1.blocks.\2."), (r"^downsamples\.(\d+)\.", r"layers.\1.downsample."),
            (r"\.(fc1|fc2)\.", r".mlp.\1."), (r"\.mixer\.", ".axial_shift."),
            *((rf"\.axial_shift\.{ours}\.", f".axial_shift.{theirs}.") for theirs, ours in SHIFT_MAPS)]


def _resmlp_timm(names) -> list:
    return [(r"^stem\.", "stem.proj."), (r"\.token_mixing\.", ".linear_tokens."), (r"\.mlp\.", ".mlp_channels."),
            (r"\.gamma_([12])$", r".ls\1")]


def _resmlp_official(names) -> list:
    return [(r"^stem\.", "patch_embed.proj."), (r"\.token_mixing\.", ".attn.")]


def _gmlp(names) -> list:
    return [(r"^stem\.", "stem.proj."), (r"\.(fc1|fc2|gate)\.", r".mlp_channels.\1."), (r"\.token_mixing\.", ".proj.")]


def _vit(names) -> list:
    return [(r"^stem\.", "patch_embed.proj."), (r"\.attention\.", ".attn."), (r"^class_token$", "cls_token"),
            (r"^position$", "pos_embed")]


def _swin() -> list:
    return [(r"^stem\.", "patch_embed.proj."), (r"^stem_norm\.", "patch_embed.norm."),
            (r"^stages\.(\d+)\.(\d+)\.", r"layers.\1.blocks.\2."), (r"\.attention\.attention\.", ".attn."),
            (r"\.attention\.bias_table$", ".attn.relative_position_bias_table"),
            (r"^merges\.(\d+)\.", lambda match: f"layers.{int(match.group(1)) + 1}.downsample.")]


CONV_MIXER = [(r"\.depthwise\.", ".0.fn.0."), (r"\.norm1\.", ".0.fn.2."), (r"\.pointwise\.", ".1."),
              (r"\.norm2\.", ".3.")]


def _conv_mixer_timm(names) -> list:
    return [*CONV_MIXER, (r"^stem\.", "stem.0."), (r"^stem_norm\.", "stem.2.")]


def _conv_mixer_official(names) -> list:
    classifier = count(names, r"blocks\.(\d+)\.") + 5
    return [*CONV_MIXER, (r"^stem\.", "0."), (r"^stem_norm\.", "2."), (r"^head\.", f"{classifier}."),
            (r"^blocks\.(\d+)\.", lambda match: f"{int(match.group(1)) + 3}.")]


# (family, target): from all our names to the substitutions that turn them into theirs, in order.
RENAMES: Dict[tuple, Callable[[List[str]], list]] = {
    ("mlp_mixer", "timm"): lambda names: TORCH + _mixer(names),
    ("mlp_mixer", "google"): _google_mixer,
    ("mlp_mixer", "paddlevit"): lambda names: PADDLE + _mixer(names) + _beginnings(PADDLEVIT_MIXER),
    ("mlp_mixer", "passl"): lambda names: PADDLE + _mixer(names) + _beginnings(PASSL_MIXER),
    ("conv_mlp", "official"): lambda names: TORCH + _conv_mlp(names),
    ("conv_mlp", "paddlevit"): lambda names: PADDLE + _conv_mlp(names),
    ("cycle_mlp", "official"): lambda names: TORCH + _cycle_mlp(names),
    ("cycle_mlp", "paddlevit"): lambda names: PADDLE + _cycle_mlp(names),
    ("as_mlp", "official"): lambda names: TORCH + _as_mlp(names),
    ("vit", "timm"): lambda names: TORCH + _vit(names),
    ("swin", "timm"): lambda names: _swin(),
    ("vip", "official"): lambda names: TORCH + _vip(names),
    ("vip", "paddlevit"): lambda names: PADDLE + _vip(names),
    ("resmlp", "timm"): lambda names: TORCH + _resmlp_timm(names),
    ("resmlp", "official"): lambda names: TORCH + _resmlp_official(names),
    ("resmlp", "paddlevit"): lambda names: PADDLE + _resmlp_timm(names) + _beginnings(PADDLEVIT_MIXER),
    ("gmlp", "timm"): lambda names: TORCH + _gmlp(names),
    ("gmlp", "paddlevit"): lambda names: PADDLE + _gmlp(names) + _beginnings(PADDLEVIT_MIXER),
    ("conv_mixer", "timm"): lambda names: TORCH + _conv_mixer_timm(names),
    ("conv_mixer", "official"): lambda names: TORCH + _conv_mixer_official(names),
    ("conv_mixer", "paddlevit"): lambda names: PADDLE + _conv_mixer_official(names),
}


def _theirs(name: str, renames: list) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _constant(row: Row) -> numpy.ndarray:
    """An array that only the reference has: the offsets of CycleFC."""
    for theirs, _, moving in CYCLE_FCS:
        if row.theirs.endswith(f".{theirs}.offset"):
            return published_offset(row.shape[1] // 2, moving)
    raise BadInput(f"{row.theirs} of the reference cannot be made from our network")


def _laid_out(row: Row, value: numpy.ndarray) -> numpy.ndarray:
    if row.transpose:
        value = value.T
    return value.transpose(numpy.argsort(row.axes)) if row.axes else value


def inverse(key_map: Callable, renames: Callable, state: Dict[str, dict]) -> Dict[str, numpy.ndarray]:
    """A reference's state dict from ours.

    Args:
        key_map: of the reference, from a state dict to its rows.
        renames: an entry of ``RENAMES``.
        state: ``{"backbone": ..., "head": ...}``, arrays under our names; the head may be left empty.
    Returns:
        ``{their name: array}`` in their layout.
    Raises:
        BadInput: arrays that are missing, unexpected or wrongly shaped.
    """
    own = {**state["backbone"], **{HEAD + name: value for name, value in state.get("head", {}).items()}}
    rules = renames(list(own))
    theirs = {_theirs(name, rules): value for name, value in own.items()}
    # Transposes do not depend on sizes, so they can be read from a first draft in the wrong layout.
    draft = {row.theirs: _laid_out(row, own[row.ours]) for row in key_map(theirs) if row.ours in own}
    rows = [row for row in key_map({**theirs, **draft}) if state.get("head") or not row.ours.startswith(HEAD)]
    missing = [row.ours for row in rows if row.ours and row.ours not in own]
    unexpected = sorted(set(own) - {row.ours for row in rows})
    wrong = [f"{row.ours} is {list(own[row.ours].shape)}, not a form of {list(row.shape)}" for row in rows
             if row.ours in own and own[row.ours].size != numpy.prod(row.shape)]
    if missing or unexpected or wrong:
        raise BadInput("the arrays are not those of one of our networks of this family; "
                       f"missing: {missing}; unexpected: {unexpected}; wrongly shaped: {wrong}")
    return {row.theirs: numpy.ascontiguousarray(draft[row.theirs].reshape(row.shape)) if row.ours else _constant(row)
            for row in rows}
