"""What the recipes of ``views.py`` and ``view_pairs.py`` check of their options."""
from collections.abc import Sequence
from typing import Union

from passl_mixer.errors import BadInput

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PerChannel = Union[float, Sequence[float]]


def several(key: str, value, count: int) -> tuple:
    """A number repeated, or a sequence of exactly ``count`` numbers."""
    if isinstance(value, (int, float)):
        return (float(value),) * count
    if len(value) != count:
        raise BadInput(f"views option {key!r} is {list(value)}, expected a number or {count} numbers")
    return tuple(float(v) for v in value)


def normalisation(mean, std) -> tuple:
    """``(mean, std)``, three numbers each."""
    mean, std = several("mean", mean, 3), several("std", std, 3)
    if min(std) <= 0:
        raise BadInput(f"views option 'std' is {list(std)}, expected positive numbers")
    return mean, std


def check(img_size: int, jitter=(), **shares) -> None:
    """Refuse a size under 1, shares beyond 0..1, a ``crop_min`` of 0 and strengths that cannot be."""
    if img_size < 1:
        raise BadInput(f"views option 'img_size' is {img_size}, expected at least 1")
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise BadInput(f"views option {key!r} is {value}, expected 0 to 1")
    if shares.get("crop_min") == 0:
        raise BadInput("views option 'crop_min' is 0, expected more than 0")
    if jitter and (min(jitter) < 0 or jitter[3] > 0.5):
        raise BadInput(f"views option 'jitter' is {list(jitter)}, expected four strengths of 0 or more, "
                       "the last (hue) at most 0.5")
