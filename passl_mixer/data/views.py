"""Named augmentation recipes: ``recipe(image, rng)`` returns ``num_views`` square uint8 RGB images.

Each random recipe draws a plan of every view, a crop box and steps in the order of its paper (``plans.py``).

Each class names the paper of its defaults; every strength is an option. SimCLR, BYOL and MoCo v3 are in
``view_pairs.py``; the recipes here have torchvision's form.

Shared options: ``img_size``, side of the views in pixels; ``crop_min``, smallest share of the area of a crop, 0..1;
``interpolation``, "bilinear" or "bicubic", torchvision's filters for PIL images (``resampling.py``); ``jitter``,
strengths (brightness, contrast, saturation, hue); ``*_p``, probabilities; ``mean`` and ``std`` of pixels scaled to
0..1, a number or one per channel. Evaluation must normalise as training did: give both the same values. Defaults by
paper: SimCLR none, MoCo and BYOL ImageNet's, Mixer (``center_crop``, ``inception``) 0.5 and 0.5. The blur kernel is a
tenth of ``img_size``; the published CIFAR recipes have no blur: ``blur_p: 0``.
"""
from collections.abc import Sequence
from typing import Optional

from passl_mixer.data import sampling, transforms
from passl_mixer.data.plans import Recipe
from passl_mixer.data.resampling import antialiased
from passl_mixer.data.view_options import IMAGENET_MEAN, IMAGENET_STD, PerChannel, check, normalisation, several
from passl_mixer.data.view_pairs import BYOL, MoCoV3, SimCLR
from passl_mixer.errors import BadInput
from passl_mixer.registry import VIEWS


class CenterCrop:
    """One deterministic view: short side to ``resize``, then the central ``img_size`` square.

    An image uint8 [img_size, img_size, 3] is returned as it is.

    Args:
        img_size: side of the view, pixels.
        resize: length of the short side before the crop, pixels; null: ``img_size``.
        interpolation: "bilinear" or "bicubic".
        mean: subtracted after division by 255, per channel.
        std: divides after that.
    Raises:
        BadInput: an option out of range.
    Source: Tolstikhin et al. 2021, arXiv:2105.01601 (256 then 224; values in [-1, 1] in their code).
    """

    num_views = 1

    def __init__(self, *, img_size: int = 224, resize: Optional[int] = None, interpolation: str = "bicubic",
                 mean: PerChannel = 0.5, std: PerChannel = 0.5):
        check(img_size)
        self.img_size, self._resize = img_size, resize or img_size
        if self._resize < img_size:
            raise BadInput(f"views 'center_crop': resize is {resize}, expected at least img_size, {img_size}")
        self._interpolation, (self.mean, self.std) = antialiased(interpolation), normalisation(mean, std)

    def __call__(self, image, rng) -> list:
        if image.shape[:2] == (self.img_size, self.img_size):
            return [image]
        return [transforms.center_crop(image, self.img_size, self._resize, self._interpolation)]


class Inception(Recipe):
    """One view: a random crop and a flip; the basic supervised recipe.

    Args:
        crop_ratio: largest ratio of a crop's sides; 1 for squares.
        others: the shared options of ``views.py``.
    Raises:
        BadInput: an option out of range.
    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; the Mixer paper's pre-processing (arXiv:2105.01601).
    """

    num_views = 1

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.08, flip_p: float = 0.5,
                 crop_ratio: float = sampling.RATIO_MAX, interpolation: str = "bilinear",
                 mean: PerChannel = 0.5, std: PerChannel = 0.5):
        check(img_size, crop_min=crop_min, flip_p=flip_p)
        if crop_ratio < 1:
            raise BadInput(f"views option 'crop_ratio' is {crop_ratio}, expected 1 or more")
        self.img_size, self._interpolation = img_size, antialiased(interpolation)
        self._crop = (crop_min, flip_p, crop_ratio)
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [sampling.crop_flip(height, width, rng, *self._crop)]


class MoCoV1(Recipe):
    """Two views: crop, gray, colour jitter, flip; no blur.

    Args:
        others: the shared options of ``views.py``.
    Source: He et al. 2020, arXiv:1911.05722, section 3.3 (technical details), order of ``main_moco.py``.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.2, flip_p: float = 0.5,
                 interpolation: str = "bilinear", jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.4),
                 jitter_p: float = 1.0, gray_p: float = 0.2, mean: PerChannel = IMAGENET_MEAN,
                 std: PerChannel = IMAGENET_STD):
        self._jitter = several("jitter", jitter, 4)
        check(img_size, self._jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._gray_p, self._jitter_p = gray_p, jitter_p
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [self._plan(height, width, rng) for _ in range(2)]

    def _plan(self, height, width, rng) -> tuple:
        box, steps = sampling.crop_flip(height, width, rng, *self._crop)
        if rng.random() < self._gray_p:
            steps.append((transforms.grayscale,))
        return box, steps + (sampling.color_jitter(self._jitter, rng) if rng.random() < self._jitter_p else [])


class MoCoV2(Recipe):
    """Two views: crop, flip, colour jitter, gray, blur.

    Args:
        others: the shared options of ``views.py``.
    Source: Chen et al. 2020, arXiv:2003.04297, table 1 ("aug+"), values of ``main_moco.py --aug-plus``.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.2, flip_p: float = 0.5,
                 interpolation: str = "bilinear", jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.1),
                 jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: float = 0.5, mean: PerChannel = IMAGENET_MEAN,
                 std: PerChannel = IMAGENET_STD):
        jitter = several("jitter", jitter, 4)
        check(img_size, jitter, crop_min=crop_min, flip_p=flip_p, jitter_p=jitter_p, gray_p=gray_p, blur_p=blur_p)
        self.img_size, self._interpolation, self._crop = img_size, antialiased(interpolation), (crop_min, flip_p)
        self._options = {"jitter": jitter, "jitter_p": jitter_p, "gray_p": gray_p, "blur_p": blur_p}
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [sampling.crop_flip_distort(height, width, rng, crop=self._crop, **self._options) for _ in range(2)]


VIEWS.add("center_crop", CenterCrop)
VIEWS.add("inception", Inception)
VIEWS.add("simclr", SimCLR)
VIEWS.add("moco_v1", MoCoV1)
VIEWS.add("moco_v2", MoCoV2)
VIEWS.add("byol", BYOL)
VIEWS.add("moco_v3", MoCoV3)
