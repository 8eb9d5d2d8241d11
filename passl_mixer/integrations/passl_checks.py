"""Checks, when a PASSL model is built, whether it can take the output of a backbone of ours.

| PASSL 0.0.4 | takes |
|---|---|
| MoCo, SimCLR | what the neck takes |
| BYOL | what the neck takes, but no map: its classifier squeezes the features |
| MoCoBYOL | pooled or vector: it flattens features of any neck |
| Classification, ByolClassification | what the head takes |
| CLIPWrapper | no backbone of ours: it needs PASSL's CLIP |
| LinearNeck, NonLinearNeckV1, NonLinearNeckV2, ClasHead | pooled; ``with_avg_pool: True`` also map, False also vector |
| NonLinearNeckfc3 | pooled or vector, whatever ``with_avg_pool`` says |
| NonLinearNeckV3 | vector |
| ConvNonLinearNeck | map |
| our heads | everything |
"""
import collections.abc
import inspect

from passl_mixer.errors import BadInput
from passl_mixer.integrations.passl_layers import BackboneEntry, check_output

POOLING = {"LinearNeck": True, "NonLinearNeckV1": True, "NonLinearNeckV2": True, "ClasHead": False}     # its default
FIXED = {"NonLinearNeckfc3": ("pooled", "vector"), "NonLinearNeckV3": ("vector",), "ConvNonLinearNeck": ("map",)}
MODELS = ("MoCo", "SimCLR", "BYOL", "MoCoBYOL", "Classification", "ByolClassification", "CLIPWrapper")
ANY = ("pooled", "map", "vector")
FLAT = ("pooled", "vector")


def _taken(cfg) -> tuple:
    """``(outputs, description)``: the outputs that a neck or head can take; all of them if it is not PASSL's."""
    name = cfg["name"]
    if name not in POOLING:
        return FIXED.get(name, ANY), name
    pools = cfg.get("with_avg_pool", POOLING[name])
    return ("pooled", "map") if pools else FLAT, f"{name} with with_avg_pool: {pools}"


def check_shapes(model: str, arguments, entries) -> bool:
    """Refuse, before anything is built, a backbone whose output a model cannot take.

    Args:
        model: PASSL's name of the model.
        arguments: of its constructor: backbone (or architecture), neck, head, as configured.
        entries: PASSL's registry of backbones.
    Returns:
        Whether the backbone is ours.
    Raises:
        BadInput: the shape cannot be taken, or the model can take no backbone of ours.
    """
    backbone = arguments.get("backbone", arguments.get("architecture"))
    if not isinstance(backbone, collections.abc.Mapping):
        return False
    entry = entries._obj_map.get(backbone.get("name"))
    if not isinstance(entry, BackboneEntry):
        return False
    if model == "CLIPWrapper":
        raise BadInput(f"PASSL's CLIPWrapper needs PASSL's backbone CLIP, got {entry.name!r}; for CLIP with this "
                       "backbone use passl_mixer's own method clip")
    output = check_output(entry.output if backbone.get("output") is None else backbone["output"])
    after = arguments.get("neck" if model in ("MoCo", "SimCLR", "BYOL") else "head")
    taken, words = (FLAT, model) if model == "MoCoBYOL" or not after else _taken(after)
    if model == "BYOL":
        both = [o for o in taken if o in FLAT]
        taken, words = both, f"BYOL with {words}"
    if output not in taken:
        remedy = f"write output: {taken[0]} beside the backbone's name" if taken else "take another neck"
        raise BadInput(f"PASSL's {words} takes output {' or '.join(taken) or 'map, which BYOL cannot take'}, and "
                       f"backbone {entry.name!r} gives {output!r}; {remedy}")
    return True


def check_widths(arguments, width: int, name: str) -> None:
    """Refuse widths that do not fit the backbone, after it is built.

    Args:
        arguments: as in ``check_shapes``.
        width: ``num_features`` of the backbone.
        name: of the backbone, for messages.
    Raises:
        BadInput: a configured width differs.
    """
    written = {f"{part}.in_channels": (arguments.get(part) or {}).get("in_channels") for part in ("neck", "head")}
    if (arguments.get("neck") or {}).get("name"):
        written.pop("head.in_channels")
    if "embedding_dim" in arguments:
        written["embedding_dim"] = arguments["embedding_dim"]
    for key, value in written.items():
        if value is not None and value != width:
            raise BadInput(f"model.{key} is {value}, and backbone {name!r} gives {width} features; "
                           f"write {key}: {width}")


def checked(original, model: str, entries):
    """Wrap the ``__init__`` of a PASSL model with these checks.

    Args:
        original: the ``__init__``.
        model: PASSL's name of the model.
        entries: PASSL's registry of backbones.
    """
    signature = inspect.signature(original)

    def __init__(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        ours = check_shapes(model, bound.arguments, entries)
        original(self, *args, **kwargs)
        if ours and model != "MoCoBYOL":
            check_widths(bound.arguments, self.backbone.num_features, bound.arguments["backbone"]["name"])

    return __init__
