"""Checks of the options of ``views.py`` and ``view_pairs.py``."""
from collections.abc import Sequence
from typing import Union

from passl_mixer.errors import BadInput

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PerChannel = Union[float, Sequence[float]]


def several(key: str, value, count: int) -> tuple:
    """An option as a tuple of numbers.

    Args:
        key: name of the option, for messages.
        value: a number, which is repeated, or a sequence of ``count`` numbers.
        count: length of the tuple.
    Raises:
        BadInput: a sequence of another length.
    """
    if isinstance(value, (int, float)):
        return (float(value),) * count
    if len(value) != count:
        raise BadInput(f"views option {key!r} is {list(value)}, expected a number or {count} numbers")
    return tuple(float(v) for v in value)


def normalisation(mean, std) -> tuple:
    """``(mean, std)``, three numbers each.

    Raises:
        BadInput: another length, or a deviation that is not positive.
    """
    mean, std = several("mean", mean, 3), several("std", std, 3)
    if min(std) <= 0:
        raise BadInput(f"views option 'std' is {list(std)}, expected positive numbers")
    return mean, std


def check(img_size: int, jitter=(), **shares) -> None:
    """Check the range of options.

    Args:
        img_size: at least 1.
        jitter: four strengths of 0 or more, the last at most 0.5; empty: not checked.
        **shares: probabilities and ``crop_min``, 0..1; ``crop_min`` is above 0.
    Raises:
        BadInput: an option out of range.
    """
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
