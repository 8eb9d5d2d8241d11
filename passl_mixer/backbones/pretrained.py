"""Loading of pretrained weights, ours or a reference's, into a new backbone."""
import difflib
from pathlib import Path
from typing import Dict, Mapping, Optional

import numpy

from passl_mixer.backbones.token_maps import adapt_token_arrays
from passl_mixer.backbones.vip import ViP
from passl_mixer.checkpoint import find_checkpoint, load_arrays
from passl_mixer.errors import BadInput
from passl_mixer.ops.shapes import shapes_only
from passl_mixer.registry import BACKBONES
from passl_mixer.weights import NEEDS, convert_backbone, read_arrays
from passl_mixer.weights.files import own_facts

PREFIX = "backbone."


def load_pretrained(backbone, options: Mapping, path) -> None:
    """Load pretrained weights into a backbone.

    Args:
        backbone: the new backbone.
        options: its configuration: ``name`` and options.
        path: run folder, checkpoint of ours, state dict of such a backbone, or a reference's weight file. Token mixing
            of another image size is adapted (``passl_mixer.backbones.token_maps``).
    Raises:
        BadInput: an unreadable file, weights of another network (a registered one that they fit is named), or weights
            that need another activation.
    """
    if not isinstance(path, (str, Path)):
        raise BadInput(f"option 'pretrained' is {path!r}, expected the path of a run folder or a weight file")
    file = find_checkpoint(path)
    own = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    arrays, cls, words, needs = _backbone_arrays(file, type(backbone), own)
    if cls is type(backbone):       # weights of another image size are adapted where that is possible
        arrays = adapt_token_arrays(arrays, backbone, from_size=needs.get("img_size", _published_size(options)))
    shapes = {name: tuple(value.shape) for name, value in arrays.items()}
    if shapes != own:
        raise BadInput(f"{words}: these weights do not fit {options['name']!r} as it was built; "
                       f"{_first_difference(shapes, own)}; {_fitting(shapes, cls, options)}")
    act = _option(options, "act")
    if needs.get("act", act) != act:
        raise BadInput(f"{words}: these weights were trained with act {needs['act']!r}, and the backbone is built with "
                       f"{act!r}; add act: {needs['act']} beside its 'name'")
    load_arrays(backbone, arrays, words)


def _published_size(options: Mapping):
    """Image size of a reference's weights where their shapes do not tell it (ViP): that of the registered variant."""
    return _option({"name": options["name"]}, "img_size") if BACKBONES.entry(options["name"])[0] is ViP else None


def _backbone_arrays(file: Path, built: type, own: Mapping) -> tuple:
    """``(arrays under our names, class they are of or None, words for messages, options they need)``."""
    arrays, facts = read_arrays(file), own_facts(file)
    if facts is not None:
        saved = facts["config"]["model"]["backbone"]
        backbone = {name[len(PREFIX):]: value for name, value in arrays.items() if name.startswith(PREFIX)}
        needs = {key: saved[key] for key in ("act", "img_size") if key in saved}
        return backbone, _class_of(saved["name"]), f"{file} (backbone {saved['name']!r})", needs
    if set(arrays) == set(own):
        return arrays, built, str(file), {}
    inside = _inside_a_model(arrays, own)
    if inside:
        return inside, built, str(file), {}
    try:
        arrays, family, source = convert_backbone(arrays)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    return arrays, _class_of(family), f"{file} ({family}, {source})", NEEDS.get((family, source), {})


def _inside_a_model(arrays: Mapping, own: Mapping) -> Dict[str, numpy.ndarray]:
    """Our backbone's arrays inside a whole model that another framework saved (PASSL); empty where there is none.

    Of several such (MoCo's two encoders) the one whose prefix starts with ``backbone.`` is taken, if there is one.
    """
    ending = min(own)
    prefixes = [name[:-len(ending)] for name in arrays if name.endswith(f".{ending}")]
    parts = {prefix: {name[len(prefix):]: value for name, value in arrays.items() if name.startswith(prefix)}
             for prefix in prefixes}
    whole = [prefix for prefix in prefixes if set(parts[prefix]) == set(own)]
    whole = [prefix for prefix in whole if prefix.startswith(PREFIX)] or whole
    return parts[whole[0]] if len(whole) == 1 else {}


def _class_of(name: str) -> Optional[type]:
    """Class of a registered name or of a family, None if there is none."""
    names = [known for known in BACKBONES.names() if known == name or known.startswith(f"{name}_")]
    return BACKBONES.entry(names[0])[0] if names else None


def _option(options: Mapping, key: str):
    """An option's value for a backbone: given, registered, or the constructor's; None where there is none."""
    _, defaults = BACKBONES.entry(options["name"])
    parameter = BACKBONES.parameters(options["name"]).get(key)
    return {**defaults, **options}.get(key, parameter.default if parameter is not None else None)


def _first_difference(shapes: Mapping, own: Mapping) -> str:
    for name in sorted({*shapes, *own}):
        if shapes.get(name) != own.get(name):
            there, here = (list(of[name]) if name in of else "absent" for of in (shapes, own))
            return f"{name} is {there} there and {here} here"
    return ""


def _shapes_of(cfg: Mapping) -> Optional[Dict[str, tuple]]:
    """Shapes of a backbone's state, without building its weights; None if it cannot be built so."""
    try:
        return {name: tuple(t.shape) for name, t in BACKBONES.build(cfg).state_dict().items()}
    except BadInput:
        return None


def _may_fit(shapes: Mapping, defaults: Mapping) -> bool:
    """Whether the widths of a variant are among the sizes: spares laying out the ones that cannot fit."""
    widths = defaults.get("embed_dims", [defaults["embed_dim"]] if "embed_dim" in defaults else [])
    return set(widths) <= {length for shape in shapes.values() for length in shape}


def _fitting(shapes: Mapping, cls: Optional[type], options: Mapping) -> str:
    """Words that name the registered variant these shapes are of, the nearest by name if there are several."""
    size = {"img_size": options["img_size"]} if "img_size" in options else {}
    fits, sized = [], []
    with shapes_only():
        for name in BACKBONES.names():
            entry, defaults = BACKBONES.entry(name)
            if not defaults or cls not in (None, entry) or not _may_fit(shapes, defaults):
                continue
            if size and "img_size" in BACKBONES.parameters(name) and _shapes_of({"name": name, **size}) == shapes:
                sized.append(name)
            elif _shapes_of({"name": name}) == shapes:
                fits.append(name)
    if not fits and not sized:
        return "they fit no registered variant; give the options they were trained with"
    best = max(sized or fits, key=lambda name: difflib.SequenceMatcher(None, name, str(options["name"])).ratio())
    if size and not sized and "img_size" in BACKBONES.parameters(best):
        return f"they fit name: {best} at its own img_size {numpy.ravel(_option({'name': best}, 'img_size')).tolist()}"
    return f"they fit name: {best}"
