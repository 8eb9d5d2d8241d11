"""Named augmentation recipes: ``recipe(image, rng)`` gives ``num_views`` square uint8 RGB images.

Each random recipe draws a plan of every view, a crop box and steps in the order of its paper (``plans.py``).

Each class states the paper its defaults come from; every strength is an option. ``mean`` and ``std`` (of
pixels scaled to 0..1; a number, or one per channel) travel with the recipe because evaluation must
normalise as training did: give both the same values. Defaults by paper: SimCLR none, MoCo and BYOL
ImageNet's, Mixer (``center_crop``, ``inception``) 0.5 and 0.5.

Shared options: ``img_size``, side of the views in pixels; ``crop_min``, smallest share of the area a crop
keeps; ``interpolation``, "bilinear" or "bicubic", with the filter that torchvision gives PIL images
(``resampling.py``); ``jitter``, strengths (brightness, contrast, saturation, hue); ``*_p``, probabilities. The blur
kernel is a tenth of ``img_size``; the published CIFAR recipes leave the blur out: ``blur_p: 0``.
"""
from collections.abc import Sequence
from typing import Optional, Union

from passl_mixer.data import sampling, transforms
from passl_mixer.data.plans import Recipe
from passl_mixer.data.resampling import antialiased
from passl_mixer.errors import BadInput
from passl_mixer.registry import VIEWS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PerChannel = Union[float, Sequence[float]]


def _several(key: str, value, count: int) -> tuple:
    """A number repeated, or a sequence of exactly ``count`` numbers."""
    if isinstance(value, (int, float)):
        return (float(value),) * count
    if len(value) != count:
        raise BadInput(f"views option {key!r} is {list(value)}, expected a number or {count} numbers")
    return tuple(float(v) for v in value)


def _normalisation(mean, std) -> tuple:
    mean, std = _several("mean", mean, 3), _several("std", std, 3)
    if min(std) <= 0:
        raise BadInput(f"views option 'std' is {list(std)}, expected positive numbers")
    return mean, std


def _check(img_size: int, jitter=(), **shares) -> None:
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


class CenterCrop:
    """One view, nothing random: short side to ``resize``, then the central ``img_size`` square.

    An image that is ``img_size`` square already is returned as it is.

    Args:
        img_size: side of the view, pixels.
        resize: length the short side is scaled to first, pixels; null means ``img_size``.
        mean: subtracted after division by 255, per channel.
        std: divides after that.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601 (256 then 224; values in [-1, 1] in their code).
    """

    num_views = 1

    def __init__(self, *, img_size: int = 224, resize: Optional[int] = None, interpolation: str = "bicubic",
                 mean: PerChannel = 0.5, std: PerChannel = 0.5):
        _check(img_size)
        self.img_size, self._resize = img_size, resize or img_size
        if self._resize < img_size:
            raise BadInput(f"views 'center_crop': resize is {resize}, expected at least img_size, {img_size}")
        self._interpolation, (self.mean, self.std) = antialiased(interpolation), _normalisation(mean, std)

    def __call__(self, image, rng) -> list:
        if image.shape[:2] == (self.img_size, self.img_size):
            return [image]
        return [transforms.center_crop(image, self.img_size, self._resize, self._interpolation)]


class Inception(Recipe):
    """One view: a random crop and a flip; the basic supervised recipe.

    Args:
        crop_ratio: longest side of a crop over its shortest, at most; 1 for squares.
    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; the Mixer paper's pre-processing (arXiv:2105.01601).
    """

    num_views = 1

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.08, flip_p: float = 0.5,
                 crop_ratio: float = sampling.RATIO_MAX, interpolation: str = "bilinear",
                 mean: PerChannel = 0.5, std: PerChannel = 0.5):
        _check(img_size, crop_min=crop_min, flip_p=flip_p)
        if crop_ratio < 1:
            raise BadInput(f"views option 'crop_ratio' is {crop_ratio}, expected 1 or more")
        self.img_size, self._interpolation = img_size, antialiased(interpolation)
        self._crop = (crop_min, flip_p, crop_ratio)
        self.mean, self.std = _normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [_crop_flip(height, width, rng, *self._crop)]


def _crop_flip(height, width, rng, crop_min, flip_p, crop_ratio=sampling.RATIO_MAX) -> tuple:
    """(box, steps): where a plan starts."""
    box = sampling.crop_box(height, width, crop_min, rng, crop_ratio)
    return box, [(transforms.flip,)] if rng.random() < flip_p else []


def _distort(rng, jitter, jitter_p, gray_p, blur_p) -> list:
    """Colour jitter, gray, blur: the steps SimCLR, MoCo v2 and BYOL have in common."""
    steps = sampling.color_jitter(jitter, rng) if rng.random() < jitter_p else []
    if rng.random() < gray_p:
        steps.append((transforms.grayscale,))
    if rng.random() < blur_p:
        steps.append(sampling.blur(rng))
    return steps


def _crop_flip_distort(height, width, rng, crop, colors) -> tuple:
    box, steps = _crop_flip(height, width, rng, *crop)
    return box, steps + _distort(rng, *colors)


class SimCLR(Recipe):
    """Two views: crop, flip, colour jitter, gray, blur.

    Args:
        jitter: strengths at ``jitter_strength`` 1.
        jitter_strength: multiplies them; 1.0 for ImageNet, 0.5 for CIFAR-10.
    Source: Chen et al. 2020, arXiv:2002.05709, appendix A (ImageNet) and B.9 (CIFAR-10: strength 0.5, no
        blur). Values of their ``data_util.py``. Contrast is taken around the gray mean, as torchvision does;
        TensorFlow takes each channel's mean. The blur mirrors the border where theirs pads with zeros.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.08, flip_p: float = 0.5,
                 interpolation: str = "bicubic", jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
                 jitter_strength: float = 1.0, jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: float = 0.5,
                 mean: PerChannel = 0.0, std: PerChannel = 1.0):
        jitter = tuple(jitter_strength * v for v in _several("jitter", jitter, 4))
        _check(img_size, jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p, blur_p=blur_p)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._colors = (jitter, jitter_p, gray_p, blur_p)
        self.mean, self.std = _normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [_crop_flip_distort(height, width, rng, self._crop, self._colors) for _ in range(2)]


class MoCoV1(Recipe):
    """Two views: crop, gray, colour jitter, flip; no blur.

    Source: He et al. 2020, arXiv:1911.05722, section 3.3 (technical details), order of ``main_moco.py``.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.2, flip_p: float = 0.5,
                 interpolation: str = "bilinear", jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.4),
                 jitter_p: float = 1.0, gray_p: float = 0.2, mean: PerChannel = IMAGENET_MEAN,
                 std: PerChannel = IMAGENET_STD):
        self._jitter = _several("jitter", jitter, 4)
        _check(img_size, self._jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._gray_p, self._jitter_p = gray_p, jitter_p
        self.mean, self.std = _normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [self._plan(height, width, rng) for _ in range(2)]

    def _plan(self, height, width, rng) -> tuple:
        box, steps = _crop_flip(height, width, rng, *self._crop)
        if rng.random() < self._gray_p:
            steps.append((transforms.grayscale,))
        return box, steps + (sampling.color_jitter(self._jitter, rng) if rng.random() < self._jitter_p else [])


class MoCoV2(Recipe):
    """Two views: crop, flip, colour jitter, gray, blur.

    Source: Chen et al. 2020, arXiv:2003.04297, table 1 ("aug+"), values of ``main_moco.py --aug-plus``.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.2, flip_p: float = 0.5,
                 interpolation: str = "bilinear", jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.1),
                 jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: float = 0.5, mean: PerChannel = IMAGENET_MEAN,
                 std: PerChannel = IMAGENET_STD):
        jitter = _several("jitter", jitter, 4)
        _check(img_size, jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p, blur_p=blur_p)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._colors = (jitter, jitter_p, gray_p, blur_p)
        self.mean, self.std = _normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [_crop_flip_distort(height, width, rng, self._crop, self._colors) for _ in range(2)]


class BYOL(Recipe):
    """Two views that differ: the first always blurred, the second rarely blurred and sometimes solarised.

    Args:
        blur_p: probabilities (first view, second view); a number means both.
        solarize_p: likewise; values of 128 and above are inverted.
    Source: Grill et al. 2020, arXiv:2006.07733, appendix B, table 6.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.08, flip_p: float = 0.5,
                 interpolation: str = "bicubic", jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
                 jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: PerChannel = (1.0, 0.1),
                 solarize_p: PerChannel = (0.0, 0.2), mean: PerChannel = IMAGENET_MEAN,
                 std: PerChannel = IMAGENET_STD):
        self._jitter = _several("jitter", jitter, 4)
        blur_p, solarize_p = _several("blur_p", blur_p, 2), _several("solarize_p", solarize_p, 2)
        for blur, solarize in zip(blur_p, solarize_p):
            _check(img_size, self._jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p,
                   blur_p=blur, solarize_p=solarize)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._jitter_p, self._gray_p, self._pair = jitter_p, gray_p, tuple(zip(blur_p, solarize_p))
        self.mean, self.std = _normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [self._plan(height, width, rng, *probabilities) for probabilities in self._pair]

    def _plan(self, height, width, rng, blur_p, solarize_p) -> tuple:
        colors = (self._jitter, self._jitter_p, self._gray_p, blur_p)
        box, steps = _crop_flip_distort(height, width, rng, self._crop, colors)
        return box, steps + ([(transforms.solarize,)] if rng.random() < solarize_p else [])


VIEWS.add("center_crop", CenterCrop)
VIEWS.add("inception", Inception)
VIEWS.add("simclr", SimCLR)
VIEWS.add("moco_v1", MoCoV1)
VIEWS.add("moco_v2", MoCoV2)
VIEWS.add("byol", BYOL)
