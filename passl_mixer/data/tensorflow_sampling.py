"""Random choices of the official SimCLR and BYOL: crop boxes and colours, as steps of ``tensorflow_style``.

Each function draws from ``rng.random()`` and reads no pixel, as in ``sampling.py``.
"""
import math

from passl_mixer.data import tensorflow_style as style
from passl_mixer.data import transforms
from passl_mixer.data.sampling import ORDERS, RATIO_MAX

_ATTEMPTS, _MIN_COVERED = 100, 0.1  # of crop_and_resize in SimCLR's data_util.py


def simclr_box(height: int, width: int, crop_min: float, rng) -> tuple:
    """A box as TensorFlow's ``sample_distorted_bounding_box`` draws it for SimCLR.

    The ratio width / height is uniform in 3/4..4/3, then the height is uniform among those that fit. Small crops are
    likelier than with torchvision's sampler, whose area is uniform: on 375 x 500 the mean share of the area is 0.388,
    with torchvision's 0.433.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        crop_min: smallest share of the area, 0..1. SimCLR also asks for a tenth of the image, which binds below 0.1.
        rng: has ``random()``.
    Returns:
        (top, left, height, width); the whole image after 100 boxes that do not fit. As with the operator, no box
        that is smaller than the image touches its last row or column.
    Source: ``tensorflow/core/kernels/image/sample_distorted_bounding_box_op.cc``; ``tf2/data_util.py``.
    """
    area = height * width
    for _ in range(_ATTEMPTS):
        ratio = 1.0 / RATIO_MAX + (RATIO_MAX - 1.0 / RATIO_MAX) * rng.random()
        h, w = _sides(height, width, crop_min * area, ratio, rng)
        if crop_min * area <= h * w <= area and 0 < h <= height and 0 < w <= width:
            top = int(rng.random() * (height - h))
            left = int(rng.random() * (width - w))
            if h * w >= _MIN_COVERED * area:
                return top, left, h, w
    return 0, 0, height, width


def _sides(height: int, width: int, min_area: float, ratio: float, rng) -> tuple:
    """Height and width of a box of one ratio; they may not fit."""
    area = height * width
    low, high = round(math.sqrt(min_area / ratio)), round(math.sqrt(area / ratio))
    if round(high * ratio) > width:
        high = int((width + 0.5 - 1e-7) / ratio)
        high -= round(high * ratio) > width
    high = min(high, height)
    low = min(low, high)
    h = low + int(rng.random() * (high - low + 1))
    w = round(h * ratio)
    if h * w < min_area:
        h += 1
        w = round(h * ratio)
    if h * w > area:
        h -= 1
        w = round(h * ratio)
    return h, w


def byol_box(height: int, width: int, crop_min: float, rng) -> tuple:
    """A box as BYOL draws it: uniform area, log-uniform ratio, and a side that does not fit is cut to the image's.

    torchvision draws again instead, which gives fewer large crops: on 375 x 500 the mean share of the area is 0.519,
    with torchvision's 0.433. A box that was cut may have a ratio beyond 3/4..4/3.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        crop_min: smallest share of the area before the cut, 0..1.
        rng: has ``random()``.
    Returns:
        (top, left, height, width).
    Source: ``_decode_and_random_crop`` of BYOL's ``utils/dataset.py``.
    """
    area = height * width * (crop_min + (1.0 - crop_min) * rng.random())
    ratio = math.exp(math.log(RATIO_MAX) * (2.0 * rng.random() - 1.0))
    w = max(1, min(round(math.sqrt(area * ratio)), width))
    h = max(1, min(round(math.sqrt(area / ratio)), height))
    left = int(rng.random() * (width - w + 1))
    return int(rng.random() * (height - h + 1)), left, h, w


def color_jitter(strengths, rng, additive: bool) -> list:
    """Brightness, contrast, saturation and hue changes in random order.

    Args:
        strengths: (b, c, s, h). Factors are uniform in [max(0, 1 - x), 1 + x], hue in [-h, h] turns, and brightness in
            [-b, b] where it is added.
        rng: has ``random()``. The same number of draws whatever the strengths.
        additive: whether brightness is added (BYOL, and SimCLR before v2) or multiplied (SimCLR since v2).
    Returns:
        Steps ``(operation, factor, shift or turns)``.
    """
    order, draws = rng.random(), (rng.random(), rng.random(), rng.random(), rng.random())
    steps = []
    for which in ORDERS[int(order * len(ORDERS))]:
        strength, around = strengths[which], 2.0 * draws[which] - 1.0
        if strength == 0:
            steps += [] if steps else [(style.clip,)]  # a change left out clips all the same
        elif which == 3:
            steps.append((style.hue, strength * around))
        elif which == 0 and additive:
            steps.append((style.add, strength * around))
        else:
            low = max(0.0, 1.0 - strength)
            factor = low + (1.0 + strength - low) * draws[which]
            steps.append(((style.multiply, style.contrast, style.saturation)[which], factor))
    return steps


def simclr_plan(height: int, width: int, rng, *, crop, jitter, jitter_p: float, gray_p: float, blur_p: float) -> tuple:
    """A view of SimCLR: crop, flip, colour jitter, gray, blur.

    The overshoot of the cubic filter is clipped where the official code does: after the first change of colour, else
    before the blur, else at the end.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        rng: has ``random()``.
        crop: (crop_min, flip_p).
        jitter: four strengths; brightness multiplies.
        jitter_p, gray_p, blur_p: probabilities.
    Returns:
        (box, steps), for an image from ``tensorflow_resize.resize_bicubic``.
    Source: ``preprocess_for_train`` and ``batch_random_blur`` of ``tf2/data_util.py``.
    """
    crop_min, flip_p = crop
    box = simclr_box(height, width, crop_min, rng)
    steps = [(transforms.flip,)] if rng.random() < flip_p else []
    colors = color_jitter(jitter, rng, False) if rng.random() < jitter_p else []
    if colors and colors[0][0] in (style.saturation, style.hue):  # the others clip themselves
        colors.insert(1, (style.clip,))
    steps += colors
    if rng.random() < gray_p:
        steps.append((style.grayscale,))
    if rng.random() < blur_p:
        steps += [blur(rng)] if colors else [(style.clip,), blur(rng)]
    return box, [*steps, (style.to_bytes,)]


def byol_plan(height: int, width: int, rng, *, crop, jitter, jitter_p: float, gray_p: float, blur_p: float,
              solarize_p: float) -> tuple:
    """A view of BYOL: crop, clip, flip, colour jitter, gray, blur, solarise.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        rng: has ``random()``.
        crop: (crop_min, flip_p).
        jitter: four strengths; brightness is added.
        jitter_p, gray_p, blur_p, solarize_p: probabilities.
    Returns:
        (box, steps), for an image from ``tensorflow_resize.resize_bicubic``.
    Source: BYOL's ``utils/dataset.py`` and ``utils/augmentations.py``.
    """
    crop_min, flip_p = crop
    box, steps = byol_box(height, width, crop_min, rng), [(style.clip,)]
    if rng.random() < flip_p:
        steps.append((transforms.flip,))
    if rng.random() < jitter_p:
        steps += color_jitter(jitter, rng, True)
    if rng.random() < gray_p:
        steps.append((style.grayscale,))
    if rng.random() < blur_p:
        steps.append(blur(rng))
    if rng.random() < solarize_p:
        steps.append((style.solarize,))
    return box, [*steps, (style.to_bytes,)]


def blur(rng) -> tuple:
    """Gaussian blur with sigma uniform in [0.1, 2] pixels, as a step."""
    return style.gaussian_blur, 0.1 + 1.9 * rng.random()
