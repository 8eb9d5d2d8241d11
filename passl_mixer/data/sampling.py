"""Random choices of the views: crop boxes, strength and order of the jitter.

Each function draws from ``rng.random()`` and reads no pixel; ``rng`` is a NumPy Generator or its ``Draws``. The result
for an image are steps, ``(function of transforms, *amounts)``.
"""
import itertools
import math

from passl_mixer.data import transforms

ORDERS = tuple(itertools.permutations(range(4)))
_FACTORS = (transforms.brightness, transforms.contrast, transforms.saturation)
RATIO_MAX = 4.0 / 3.0
_BLOCK = 32  # numbers; two views take about 24


class Draws:
    """The numbers of ``rng.random()``, drawn in blocks, which is several times faster."""

    __slots__ = ("random",)

    def __init__(self, rng):
        self.random = _one_by_one(rng).__next__


def _one_by_one(rng):
    while True:
        yield from rng.random(_BLOCK).tolist()


def crop_box(height: int, width: int, crop_min: float, rng, ratio_max: float = RATIO_MAX) -> tuple:
    """A box of random area and shape, as torchvision's RandomResizedCrop draws it.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        crop_min: smallest share of the area, 0..1; the largest is 1.
        rng: has ``random()``.
        ratio_max: the ratio of the sides is 1 / ratio_max to ratio_max, log-uniform; 3/4 to 4/3 by default.
    Returns:
        (top, left, height, width). After ten boxes that do not fit: the largest central one with a ratio in range.
    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6 (area 8 % to 100 %, ratio 3/4 to 4/3).
    """
    area, log_ratio = height * width, math.log(ratio_max)
    for _ in range(10):
        target = area * (crop_min + (1.0 - crop_min) * rng.random())
        ratio = math.exp(log_ratio * (2.0 * rng.random() - 1.0))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1)), h, w
    h, w = height, width
    if width < height / ratio_max:
        h = round(width * ratio_max)
    elif width > height * ratio_max:
        w = round(height * ratio_max)
    return (height - h) // 2, (width - w) // 2, h, w


def color_jitter(strengths, rng) -> list:
    """Brightness, contrast, saturation and hue changes in random order.

    Args:
        strengths: (b, c, s, h). The first three factors are uniform in [max(0, 1 - x), 1 + x], hue in [-h, h]
            turns.
        rng: has ``random()``. The same number of draws whatever the strengths.
    Returns:
        Steps ``(transform, factor or turns)``; none for a strength of 0.
    """
    order, draws = rng.random(), (rng.random(), rng.random(), rng.random(), rng.random())
    steps = []
    for which in ORDERS[int(order * len(ORDERS))]:
        strength = strengths[which]
        if strength == 0:
            continue
        if which == 3:
            steps.append((transforms.hue, strength * (2.0 * draws[3] - 1.0)))
            continue
        low = max(0.0, 1.0 - strength)
        steps.append((_FACTORS[which], low + (1.0 + strength - low) * draws[which]))
    return steps


def blur(rng) -> tuple:
    """Gaussian blur with sigma uniform in [0.1, 2] pixels (SimCLR, appendix A; MoCo v2; BYOL), as a step."""
    return transforms.gaussian_blur, 0.1 + 1.9 * rng.random()


def crop_flip(height: int, width: int, rng, crop_min: float, flip_p: float, ratio_max: float = RATIO_MAX) -> tuple:
    """The beginning of a plan in torchvision's form: crop and flip.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        rng: has ``random()``.
        crop_min: as in ``crop_box``.
        flip_p: probability of the flip.
        ratio_max: as in ``crop_box``.
    Returns:
        (box, steps).
    """
    box = crop_box(height, width, crop_min, rng, ratio_max)
    return box, [(transforms.flip,)] if rng.random() < flip_p else []


def crop_flip_distort(height: int, width: int, rng, *, crop, jitter, jitter_p: float, gray_p: float,
                      blur_p: float) -> tuple:
    """The plan that SimCLR, MoCo v2, BYOL and MoCo v3 share: crop, flip, jitter, gray, blur.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        rng: has ``random()``.
        crop: (crop_min, flip_p).
        jitter: four strengths.
        jitter_p, gray_p, blur_p: probabilities.
    Returns:
        (box, steps).
    """
    box, steps = crop_flip(height, width, rng, *crop)
    if rng.random() < jitter_p:
        steps += color_jitter(jitter, rng)
    if rng.random() < gray_p:
        steps.append((transforms.grayscale,))
    if rng.random() < blur_p:
        steps.append(blur(rng))
    return box, steps
