"""PASSL's lists of transforms as our views recipes, with the strengths of the file.

A list becomes operations ``(kind, value)``; operations become one of the recipes of ``data/views.py``. The position of
the flip does not matter: it changes neither colours nor a symmetric blur.
"""
import re

from passl_mixer.errors import BadInput
from passl_mixer.passl_yaml.keys import Keys, number

IMAGENET = ("normalise", ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
JITTER = ("brightness", "contrast", "saturation", "hue")
COLOURS = ("jitter", "gray", "blur", "solarize")
CROP_RATIO, CROP_MIN = 4 / 3, 0.08


def _square(keys: Keys) -> tuple:
    """``(side in pixels, whether the file gives two sides)``."""
    given = keys.take("size", object)
    two = isinstance(given, (list, tuple))
    size = given[0] if two and len(set(given)) == 1 else given
    if not isinstance(size, int) or isinstance(size, bool):
        raise keys.refusal("size", given, "views here are square images; write one integer")
    return size, two


def _interpolation(keys: Keys) -> str:
    kind = keys.take("interpolation", str, "bilinear")
    if kind not in ("bilinear", "bicubic"):
        raise keys.refusal("interpolation", kind, "bilinear and bicubic are there")
    return kind


def _crop(keys: Keys, notes: list) -> list:
    low, high = (keys.take("scale", list, [CROP_MIN, 1.0]) + [None, None])[:2]
    if high != 1.0 or not isinstance(low, (int, float)):
        raise keys.refusal("scale", [low, high], "a crop may be as large as the image here; write [share, 1.0]")
    narrow, wide = (keys.take("ratio", list, [1 / CROP_RATIO, CROP_RATIO]) + [0, 0])[:2]
    if not (wide >= 1 and abs(narrow * wide - 1) < 0.01):
        raise keys.refusal("ratio", [narrow, wide], "ratios range from 1/r to r here, e.g. [0.75, 1.3333]")
    kind = _interpolation(keys)
    wide = CROP_RATIO if abs(wide - CROP_RATIO) < 0.01 else float(wide)
    return [("crop", {"size": _square(keys)[0], "low": low, "ratio": wide, "kind": kind})]


def _jitter(keys: Keys, notes: list) -> list:
    return [("jitter", ([keys.take(k, float, 0.0) for k in JITTER], 1.0))]


def _byol_jitter(keys: Keys, notes: list) -> list:
    notes.append("ByolColorJitter: PASSL adds a random brightness to the image and changes contrast around the mean of "
                 "each row; here brightness multiplies and contrast is around the mean of the image")
    return _jitter(keys, notes)


def _blur(keys: Keys, notes: list) -> list:
    keys.only("_PIL", (False,), "the blur is OpenCV's here; remove the key")
    sigma = [number(v) for v in keys.take("sigma", list, [0.1, 2.0])]
    if sigma != [0.1, 2.0]:
        raise keys.refusal("sigma", sigma, "sigma is uniform in [0.1, 2.0] here")
    return [("blur", 1.0)]


def _normalise(keys: Keys, notes: list) -> list:
    scale = keys.take("scale", object, None)
    parts = re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", str(scale))
    value = float(parts[1]) / float(parts[2]) if parts else number(scale)
    if scale is not None and (not isinstance(value, float) or abs(value * 255 - 1) > 1e-3):
        raise keys.refusal("scale", scale, "pixels are scaled by 1/255 here: 1.0/255.0")
    return [("normalise", (keys.take("mean", list), keys.take("std", list)))]


def _random_apply(keys: Keys, notes: list) -> list:
    chance, inner = keys.take("p", float, 0.5), operations(keys.items("transforms"), notes)
    if len(inner) != 1 or inner[0][0] not in ("jitter", "blur", "gray"):
        raise keys.refusal("transforms", [k for k, _ in inner], "RandomApply takes one colour jitter, gray or "
                                                                "blur here")
    kind, value = inner[0]
    return [(kind, (value[0], value[1] * chance) if kind == "jitter" else value * chance)]


def _solarize(keys: Keys, notes: list) -> list:
    keys.only("threshold", (128,), "values of 128 and above are inverted here")
    return [("solarize", 1.0)]


def _resize(keys: Keys, notes: list) -> list:
    size, two = _square(keys)
    return [("resize", {"size": size, "exact": two, "kind": _interpolation(keys)})]


def _clip(keys: Keys, notes: list) -> list:
    for key, bound in (("min_val", 0.0), ("max_val", 1.0)):
        keys.only(key, (bound,), f"pixels stay in 0 to 1 here; write {bound}")
    return []


def _byol_crop(keys: Keys, notes: list) -> list:
    notes.append("ByolRandomCrop: PASSL cuts a crop that does not fit the image; here it is drawn again")
    return [("crop", {"size": None, "low": CROP_MIN, "ratio": CROP_RATIO, "kind": "bicubic"})]


def _nothing(keys: Keys, notes: list) -> list:
    return []


def _to_rgb(keys: Keys, notes: list) -> list:
    keys.only("mode", ("RGB",), "images are RGB here")
    keys.only("return_type", ("pil", "numpy"), "no effect here; remove it")
    return []


TRANSFORMS = {
    "RandomResizedCrop": _crop, "ByolRandomCrop": _byol_crop, "Resize": _resize,
    "CenterCrop": lambda keys, notes: [("center", _square(keys)[0])],
    "RandomHorizontalFlip": lambda keys, notes: [("flip", keys.take("prob", float, 0.5))],
    "ByolRandomHorizontalFlip": lambda keys, notes: [("flip", keys.take("p", float, 0.5))],
    "ColorJitter": _jitter, "ByolColorJitter": _byol_jitter,
    "RandomGrayscale": lambda keys, notes: [("gray", keys.take("p", float, 0.1))],
    "ByolRandomGrayscale": lambda keys, notes: [("gray", keys.take("p", float, 0.1))],
    "GaussianBlur": _blur, "Solarization": _solarize, "RandomApply": _random_apply,
    "NormalizeImage": _normalise, "Normalize": _normalise, "ByolNormalize": _nothing, "Clip": _clip,
    "ToRGB": _to_rgb, "Transpose": _nothing, "ToTensor": _nothing,
}


def operations(items: list, notes: list) -> list:
    """``[(kind, value)]`` of a list of transforms.

    Args:
        items: ``Keys`` of each.
        notes: deviations are appended.
    Raises:
        BadInput: an unknown transform, or an option that the recipes do not have.
    """
    translated = []
    for keys in items:
        translated += TRANSFORMS[keys.choice(list(TRANSFORMS))](keys, notes)
    return translated


def _by_kind(steps: list, path: str) -> dict:
    """The operations as ``{kind: value}``; ``BadInput`` for one that is there twice, or without normalisation."""
    facts = dict(steps)
    if len(facts) != len(steps):
        twice = next(k for k, _ in steps if [o for o, _ in steps].count(k) > 1)
        raise BadInput(f"'{path}' has the operation {twice!r} twice; every views recipe here has it once")
    if "normalise" not in facts:
        raise BadInput(f"'{path}' does not normalise; add NormalizeImage with scale 1.0/255.0, mean and std")
    return facts


def _shared(facts: dict) -> dict:
    mean, std = facts["normalise"]
    return {"mean": [number(v) for v in mean], "std": [number(v) for v in std]}


def single_view(steps: list, path: str) -> dict:
    """A views entry for one training view: ``inception``.

    Args:
        steps: of ``operations``.
        path: the section's, for messages.
    Raises:
        BadInput: no recipe here does that.
    """
    facts = _by_kind(steps, path)
    colours = [k for k, _ in steps if k in COLOURS]
    if colours or "crop" not in facts or "center" in facts:
        what = f"{colours[0]!r}" if colours else "no random crop"
        raise BadInput(f"'{path}' has {what}; the recipe for one view here, inception, is a random crop and a flip. "
                       "Remove the transform; -o data.train_views=... can then choose other views")
    crop, resize = facts["crop"], facts.get("resize", {"size": None, "exact": True})
    size = resize["size"] or crop["size"]
    if size is None or not resize["exact"]:
        raise BadInput(f"'{path}' crops to no fixed size; add Resize with size [224, 224]")
    entry = {"name": "inception", "img_size": size, "crop_min": crop["low"], "flip_p": facts.get("flip", 0.0)}
    entry.update({"crop_ratio": crop["ratio"]} if crop["ratio"] != CROP_RATIO else {})
    entry.update({"interpolation": crop["kind"]} if crop["kind"] != "bilinear" else {})
    return {**entry, **_shared(facts)}


def two_views(first: list, second: list, path: str, notes: list) -> dict:
    """A views entry for two views: ``simclr``, ``moco_v1``, ``moco_v2`` or ``byol``.

    Args:
        first, second: operations of either view, of ``operations``.
        path: the section's, for messages.
        notes: deviations are appended.
    Raises:
        BadInput: no recipe here does that.
    """
    a, b = _by_kind(first, path), _by_kind(second, path)
    colours = [k for k, _ in first if k in COLOURS] or [k for k, _ in second if k in COLOURS]
    same = {k: v for k, v in a.items() if k not in ("blur", "solarize")} == {
        k: v for k, v in b.items() if k not in ("blur", "solarize")}
    if not same or "crop" not in a or {"resize", "center"} & set(a):
        raise BadInput(f"'{path}.view_trans1' and 'view_trans2' differ in more than blur and solarisation, or do not "
                       "begin with a random crop; no views recipe here does that: make them alike")
    (jitter, jitter_p), crop = a.get("jitter", ([0.0] * 4, 0.0)), a["crop"]
    if crop["ratio"] != CROP_RATIO:
        raise BadInput(f"'{path}': two views are cropped with the ratio [0.75, 1.3333] here; remove 'ratio'")
    entry = {"img_size": crop["size"], "crop_min": crop["low"], "flip_p": a.get("flip", 0.0), "jitter": jitter,
             "jitter_p": jitter_p, "gray_p": a.get("gray", 0.0)}
    bicubic, order = crop["kind"] == "bicubic", [COLOURS.index(k) for k in colours]
    if colours == ["gray", "jitter"] and not bicubic and a == b:
        return {"name": "moco_v1", **entry, **_shared(a)}
    if order != sorted(order):
        raise BadInput(f"'{path}' has the order {', '.join(colours)}; the recipes here have jitter, gray, blur, "
                       "solarize, or (moco_v1, bilinear) gray, jitter")
    if crop["size"] // 10 // 2 * 2 + 1 != 23:
        notes.append("GaussianBlur: PASSL's kernel has 23 pixels at every size, ours a tenth of img_size "
                     f"{crop['size']}")
    style = {"style": "torchvision"}  # PASSL's transforms are Paddle's, which are torchvision's
    if a == b and "solarize" not in a:
        name = {"name": "simclr", **style} if bicubic else {"name": "moco_v2"}
        return {**name, **entry, "blur_p": a.get("blur", 0.0), **_shared(a)}
    pairs = {f"{k}_p": [v.get(k, 0.0) for v in (a, b)] for k in ("blur", "solarize")}
    entry.update({} if bicubic else {"interpolation": crop["kind"]})
    return {"name": "byol", **style, **entry, **pairs, **_shared(a)}


def eval_view(steps: list, path: str) -> dict:
    """A views entry for evaluation: ``center_crop``.

    Args:
        steps: of ``operations``.
        path: the section's, for messages.
    Raises:
        BadInput: no recipe here does that.
    """
    facts = _by_kind(steps, path)
    if set(facts) != {"resize", "center", "normalise"} or facts["resize"]["exact"]:
        raise BadInput(f"'{path}' has {', '.join(k for k, _ in steps)}; evaluation here is Resize (one number: the "
                       "short side), CenterCrop and a normalisation")
    resize = facts["resize"]
    return {"name": "center_crop", "img_size": facts["center"], "resize": resize["size"],
            "interpolation": resize["kind"], **_shared(facts)}
