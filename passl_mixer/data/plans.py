"""Plan first, then pixels: every random choice of a recipe is made from the image's size alone.

A plan of one view is ``(box, steps)``: the crop in pixels of the whole image, and the transforms after it, each
``(function, *amounts)``. Because no choice looks at pixels, the boxes are known before a file is decoded, and a
JPEG much larger than the views is decoded only as large as its crops need. Where that is possible the boxes lie on
multiples of the reduction, decoded smaller or not, so that both ways cut the same part of the image.
"""
import cv2

from passl_mixer.data import sampling, transforms

_REDUCTIONS = (8, 4, 2)


def _aligned(box: tuple, factor: int, height: int, width: int) -> tuple:
    """The box with its edges on the nearest multiples of ``factor``, or on the image's own edges."""
    top, left = (factor * round(edge / factor) for edge in box[:2])
    bottom = min(height, factor * round((box[0] + box[2]) / factor))
    right = min(width, factor * round((box[1] + box[3]) / factor))
    return top, left, bottom - top, right - left


class Recipe:
    """A views recipe made of plans. A subclass sets ``img_size``, ``num_views`` and ``_interpolation`` (an OpenCV
    flag) and draws ``_plans(height, width, rng)``, a list of ``(box, steps)``."""

    def __call__(self, image, rng, size=None) -> list:
        """The views of one image.

        Args:
            image: uint8 [H, W, 3] RGB, whole, or decoded smaller by what ``reduction`` gave.
            rng: numpy Generator.
            size: (height, width) of the whole image, pixels; None: ``image`` is the whole.
        Returns:
            ``num_views`` uint8 [img_size, img_size, 3] arrays.
        """
        height, width = size or image.shape[:2]
        factor, plans = self._aligned_plans(height, width, rng)
        if image.shape[0] == height:
            factor = 1
        views = []
        for box, steps in plans:
            view = transforms.resized_crop(image, box, self.img_size, self._interpolation, factor)
            for transform, *amounts in steps:
                view = transform(view, *amounts)
            views.append(view)
        return views

    def reduction(self, height: int, width: int, rng) -> int:
        """How many times smaller per side an image may be decoded: 8, 4, 2 or 1; every crop keeps ``img_size`` pixels.

        Args:
            height: of the whole image, pixels.
            width: of the whole image, pixels.
            rng: the generator that the views will be made with, in the same state.
        """
        return self._aligned_plans(height, width, rng)[0] if min(height, width) > 2 * self.img_size else 1

    def plans(self, height: int, width: int, rng) -> list:
        """The plans that ``__call__`` follows with a whole image, for another program to carry out.

        Args:
            height: of the whole image, pixels.
            width: of the whole image, pixels.
            rng: the generator that the views would be made with, in the same state.
        Returns:
            ``num_views`` plans ``(box, steps)``.
        """
        return self._aligned_plans(height, width, rng)[1]

    @property
    def bicubic(self) -> bool:
        """Whether crops that do not shrink to half are sampled by cubic polynomials, otherwise linearly."""
        return self._interpolation == cv2.INTER_CUBIC

    def _aligned_plans(self, height, width, rng) -> tuple:
        plans = self._plans(height, width, sampling.Draws(rng))
        if min(height, width) <= 2 * self.img_size:
            return 1, plans
        side = min(min(box[2:]) for box, _ in plans)
        # One pixel more than img_size, so that moving the box's edges never costs one.
        factor = next((factor for factor in _REDUCTIONS if side > factor * self.img_size), 1)
        if factor > 1:
            plans = [(_aligned(box, factor, height, width), steps) for box, steps in plans]
        return factor, plans
