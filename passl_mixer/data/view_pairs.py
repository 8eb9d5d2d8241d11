"""Recipes of two views with several published forms: SimCLR, BYOL and MoCo v3. Registered in ``views.py``.

``style`` selects the form of ``simclr`` and ``byol``. ``tensorflow``, the default, is that of the official code:
TensorFlow's operations in float32 (``tensorflow_style.py``) and the boxes of each paper's own sampler
(``tensorflow_sampling.py``). ``torchvision`` is that of most ports: PIL's operations on bytes (``transforms.py``) and
RandomResizedCrop (``sampling.py``). docs/data.md lists the differences. MoCo v3 is published on torchvision.
"""
from collections.abc import Sequence
from typing import Optional

from passl_mixer.data import sampling, tensorflow_sampling, transforms
from passl_mixer.data.plans import Recipe
from passl_mixer.data.resampling import antialiased
from passl_mixer.data.view_options import IMAGENET_MEAN, IMAGENET_STD, PerChannel, check, normalisation, several
from passl_mixer.errors import BadInput, nearest

STYLES = ("tensorflow", "torchvision")


def _resampler(style: str, interpolation: Optional[str]) -> str:
    """The name of the resampler of a style."""
    if style not in STYLES:
        raise BadInput(f"views option 'style' is {style!r}{nearest(style, STYLES)}")
    name = antialiased(interpolation or "bicubic")
    if style == "torchvision":
        return name
    if interpolation is not None:
        raise BadInput(f"views option 'interpolation' is {interpolation!r}, but style 'tensorflow' always resizes by "
                       "TensorFlow's cubic filter; remove it, or use style: torchvision")
    return "tf_bicubic"


class SimCLR(Recipe):
    """Two views: crop, flip, colour jitter, gray, blur.

    Args:
        style: "tensorflow", as the official code, or "torchvision".
        interpolation: "bilinear" or "bicubic" (null) for style "torchvision"; "tensorflow" has its own.
        jitter: strengths at ``jitter_strength`` 1.
        jitter_strength: multiplies them; 1.0 for ImageNet, 0.5 for CIFAR-10.
        others: the shared options of ``views.py``.
    Source: Chen et al. 2020, arXiv:2002.05709, appendix A (ImageNet) and B.9 (CIFAR-10: strength 0.5, no
        blur); google-research/simclr ``tf2/data_util.py`` with its default ``impl='simclrv2'``, by which brightness
        multiplies.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, style: str = "tensorflow", crop_min: float = 0.08, flip_p: float = 0.5,
                 interpolation: Optional[str] = None, jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
                 jitter_strength: float = 1.0, jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: float = 0.5,
                 mean: PerChannel = 0.0, std: PerChannel = 1.0):
        jitter = tuple(jitter_strength * v for v in several("jitter", jitter, 4))
        self._options = {"jitter": jitter, "jitter_p": jitter_p, "gray_p": gray_p, "blur_p": blur_p}
        check(img_size, crop_min=crop_min, flip_p=flip_p, **self._options)
        self.img_size, self._interpolation = img_size, _resampler(style, interpolation)
        self._crop, self._tensorflow = (crop_min, flip_p), style == "tensorflow"
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        draw = tensorflow_sampling.simclr_plan if self._tensorflow else sampling.crop_flip_distort
        return [draw(height, width, rng, crop=self._crop, **self._options) for _ in range(2)]


class BYOL(Recipe):
    """Two different views: the first always blurred, the second rarely blurred and sometimes solarised.

    Args:
        style: "tensorflow", as the official code, or "torchvision".
        interpolation: "bilinear" or "bicubic" (null) for style "torchvision"; "tensorflow" has its own.
        blur_p: probabilities (first view, second view); a number means both.
        solarize_p: likewise; the upper half of the values is inverted.
        others: the shared options of ``views.py``.
    Source: Grill et al. 2020, arXiv:2006.07733, appendix B, table 6; google-deepmind/deepmind-research
        ``byol/utils/augmentations.py`` and ``dataset.py``.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, style: str = "tensorflow", crop_min: float = 0.08, flip_p: float = 0.5,
                 interpolation: Optional[str] = None, jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1),
                 jitter_p: float = 0.8, gray_p: float = 0.2, blur_p: PerChannel = (1.0, 0.1),
                 solarize_p: PerChannel = (0.0, 0.2), mean: PerChannel = IMAGENET_MEAN, std: PerChannel = IMAGENET_STD):
        jitter = several("jitter", jitter, 4)
        self._pair = _pair(img_size, (crop_min, flip_p), jitter, jitter_p, gray_p, blur_p, solarize_p)
        self.img_size, self._interpolation = img_size, _resampler(style, interpolation)
        self._draw = tensorflow_sampling.byol_plan if style == "tensorflow" else _solarising_plan
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [self._draw(height, width, rng, **options) for options in self._pair]


class MoCoV3(Recipe):
    """Two different views as BYOL's, on torchvision and resized bilinearly.

    Args:
        blur_p: probabilities (first view, second view); a number means both.
        solarize_p: likewise; values of 128 and above are inverted.
        others: the shared options of ``views.py``.
    Source: Chen et al. 2021, arXiv:2104.02057; facebookresearch/moco-v3 ``main_moco.py``, whose ``--crop-min`` is 0.08
        for ViT and 0.2 for ResNet. Deviation: the blur is a Gaussian, theirs Pillow's three box filters.
    """

    num_views = 2

    def __init__(self, *, img_size: int = 224, crop_min: float = 0.08, flip_p: float = 0.5,
                 interpolation: str = "bilinear", jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1), jitter_p: float = 0.8,
                 gray_p: float = 0.2, blur_p: PerChannel = (1.0, 0.1), solarize_p: PerChannel = (0.0, 0.2),
                 mean: PerChannel = IMAGENET_MEAN, std: PerChannel = IMAGENET_STD):
        jitter = several("jitter", jitter, 4)
        self._pair = _pair(img_size, (crop_min, flip_p), jitter, jitter_p, gray_p, blur_p, solarize_p)
        self.img_size, self._interpolation = img_size, antialiased(interpolation)
        self.mean, self.std = normalisation(mean, std)

    def _plans(self, height, width, rng) -> list:
        return [_solarising_plan(height, width, rng, **options) for options in self._pair]


def _pair(img_size, crop, jitter, jitter_p, gray_p, blur_p, solarize_p) -> list:
    """The options of both views, checked."""
    pair = []
    for blur, solarize in zip(several("blur_p", blur_p, 2), several("solarize_p", solarize_p, 2)):
        options = {"jitter": jitter, "jitter_p": jitter_p, "gray_p": gray_p, "blur_p": blur, "solarize_p": solarize}
        check(img_size, crop_min=crop[0], flip_p=crop[1], **options)
        pair.append({"crop": crop, **options})
    return pair


def _solarising_plan(height, width, rng, *, crop, jitter, jitter_p, gray_p, blur_p, solarize_p) -> tuple:
    """A view of BYOL or MoCo v3 in torchvision's form."""
    box, steps = sampling.crop_flip_distort(height, width, rng, crop=crop, jitter=jitter, jitter_p=jitter_p,
                                            gray_p=gray_p, blur_p=blur_p)
    return box, steps + ([(transforms.solarize,)] if rng.random() < solarize_p else [])
