"""Checks of sizes, options and images before a backbone is built or run. Errors name the remedy."""
from typing import Sequence, Tuple, Union

from passl_mixer.errors import BadInput, nearest

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "quick_gelu")


def check_act(act: str) -> str:
    """The name of an activation, checked.

    Raises:
        BadInput: an unknown name; the message has the nearest one.
    """
    if act not in ACTIVATIONS:
        raise BadInput(f"unknown act {act!r}{nearest(act, ACTIVATIONS)}")
    return act


def image_pair(img_size: Union[int, Sequence[int]]) -> Tuple[int, int]:
    """``(height, width)`` of an ``img_size`` option, which is one integer or a pair.

    Raises:
        BadInput: anything else.
    """
    pair = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(pair) != 2 or min(pair) < 1:
        raise BadInput(f"img_size is {img_size!r}, expected one positive integer or [height, width]")
    return pair


def patch_grid(img_size: Tuple[int, int], patch_size: int) -> Tuple[int, int]:
    """Rows and columns of patches in an image of ``img_size`` (height, width).

    Raises:
        BadInput: a side is not a multiple of ``patch_size``.
    """
    if any(side % patch_size for side in img_size):
        fits = " x ".join(str(max(round(side / patch_size), 1) * patch_size) for side in img_size)
        raise BadInput(f"img_size {img_size[0]} x {img_size[1]} is not a multiple of patch_size {patch_size}; "
                       f"change img_size (to {fits}, say) or patch_size")
    return img_size[0] // patch_size, img_size[1] // patch_size


def check_positive(**options) -> None:
    """Check options that are a number or a list of numbers.

    Raises:
        BadInput: one is empty or not above 0.
    """
    for name, value in options.items():
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if not values or min(values) <= 0:
            words = "a number" if values == [value] else "a list of numbers"
            raise BadInput(f"{name} is {value!r}, expected {words} above 0")


def check_same_length(**options) -> None:
    """Check options that have one entry per stage each.

    Raises:
        BadInput: their lengths differ.
    """
    lengths = {name: len(value) for name, value in options.items()}
    if len(set(lengths.values())) != 1:
        words = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise BadInput(f"{words} entries; give each of them one entry per stage")


def check_images(images, in_chans: int, img_size=None) -> None:
    """Check that images are [B, in_chans, H, W].

    Args:
        images: the images; unknown sizes (-1, in an exported program) pass.
        in_chans: expected channels.
        img_size: expected (height, width) in pixels; None for any.
    Raises:
        BadInput: another shape.
    """
    shape = list(images.shape)
    if len(shape) != 4 or shape[1] not in (in_chans, -1):
        raise BadInput(f"images have shape {shape}, expected [B, {in_chans}, H, W]; "
                       f"set in_chans of the backbone for another number of channels")
    if img_size is None:
        return
    if any(side not in (expected, -1) for side, expected in zip(shape[2:], img_size)):
        raise BadInput(f"images are {shape[2]} x {shape[3]} pixels, the backbone was built for img_size "
                       f"{img_size[0]} x {img_size[1]}; give the backbone and the views the same img_size")
