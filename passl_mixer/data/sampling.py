"""The random choices of the views: where to crop, how strong the jitter is, in which order.

Each function takes its randomness from a ``numpy.random.Generator`` and calls the functions of
``transforms``.
"""
import itertools
import math

from passl_mixer.data import transforms

_ORDERS = tuple(itertools.permutations(range(4)))
_LOG_RATIO = math.log(4.0 / 3.0)


def crop_box(height: int, width: int, crop_min: float, rng) -> tuple:
    """A box of random area and shape, as torchvision's RandomResizedCrop draws it.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        crop_min: smallest share of the area, 0..1; the largest is 1. The ratio of the sides is 3/4 to 4/3,
            log-uniform.
        rng: numpy Generator.
    Returns:
        (top, left, height, width). After ten boxes that do not fit: the largest central one whose ratio is in
        range.
    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6 (area 8 % to 100 %, ratio 3/4 to 4/3).
    """
    area = height * width
    for _ in range(10):
        target = area * (crop_min + (1.0 - crop_min) * rng.random())
        ratio = math.exp(_LOG_RATIO * (2.0 * rng.random() - 1.0))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1)), h, w
    h, w = height, width
    if width < height * 3 / 4:
        h = round(width * 4 / 3)
    elif width > height * 4 / 3:
        w = round(height * 4 / 3)
    return (height - h) // 2, (width - w) // 2, h, w


def color_jitter(image, strengths, rng):
    """Brightness, contrast, saturation and hue changes in random order.

    Args:
        image: uint8 [H, W, 3].
        strengths: (b, c, s, h). The first three factors are uniform in [max(0, 1 - x), 1 + x], hue in [-h, h]
            turns.
        rng: numpy Generator. The same number of draws whatever the strengths.
    Returns:
        uint8 [H, W, 3].
    """
    order = _ORDERS[int(rng.random() * len(_ORDERS))]
    draws = rng.random(4).tolist()
    for which in order:
        strength = strengths[which]
        if strength == 0:
            continue
        if which == 3:
            image = transforms.hue(image, strength * (2.0 * draws[3] - 1.0))
            continue
        low = max(0.0, 1.0 - strength)
        factor = low + (1.0 + strength - low) * draws[which]
        image = (transforms.brightness, transforms.contrast, transforms.saturation)[which](image, factor)
    return image


def blur(image, rng):
    """Gaussian blur with sigma uniform in [0.1, 2] pixels (SimCLR, appendix A; MoCo v2; BYOL)."""
    return transforms.gaussian_blur(image, 0.1 + 1.9 * rng.random())
