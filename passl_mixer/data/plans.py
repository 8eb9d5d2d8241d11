"""Plans of views: every random choice of a recipe is made from the image's size alone.

A plan of one view is ``(box, steps)``: the crop in pixels of the whole image, and the transforms after it, each
``(function, *amounts)``. No choice depends on pixels, so the boxes are known before a file is decoded. A JPEG much
larger than the views is therefore decoded at a fraction of its size, as far as its crops stay sharp.
"""
from passl_mixer.data import sampling, transforms
from passl_mixer.data.resampling import ANTIALIASED

_REDUCTIONS = (8, 4, 2)
# Smallest side of a crop after a reduction, in sides of the view. Leaving out frequencies blurs a little; with this
# margin, views keep 0.9 to 1.1 of their sharpness (measured in docs/data.md).
MARGIN = 2.5


class Recipe:
    """Base class of the random views recipes.

    A subclass sets ``img_size``, ``num_views`` and ``_interpolation`` (a name of ``resampling.RESAMPLERS``) and draws
    ``_plans(height, width, rng)``, a list of ``(box, steps)``.
    """

    def __call__(self, image, rng, size=None) -> list:
        """The views of one image.

        Args:
            image: uint8 [H, W, 3] RGB, whole or reduced by the factor of ``reduction``.
            rng: NumPy Generator.
            size: (height, width) of the whole image, pixels; None: ``image`` is the whole.
        Returns:
            ``num_views`` uint8 [img_size, img_size, 3] arrays.
        """
        height, width = size or image.shape[:2]
        plans = self.plans(height, width, rng)
        factor = 1 if image.shape[0] == height else self._factor(plans)
        views = []
        for box, steps in plans:
            view = transforms.resized_crop(image, box, self.img_size, self._interpolation, factor)
            for transform, *amounts in steps:
                view = transform(view, *amounts)
            views.append(view)
        return views

    def reduction(self, height: int, width: int, rng) -> int:
        """Factor by which the sides of an image may be reduced on decoding: 8, 4, 2 or 1.

        Every crop keeps ``MARGIN`` times ``img_size`` pixels a side. Without antialiasing it is always 1: such a
        resampler reads single pixels, which must be those of the whole image.

        Args:
            height: of the whole image, pixels.
            width: of the whole image, pixels.
            rng: the generator of the views, in the same state.
        """
        if min(height, width) < 2 * MARGIN * self.img_size:
            return 1
        return self._factor(self.plans(height, width, rng))

    def plans(self, height: int, width: int, rng) -> list:
        """The plans that ``__call__`` follows, for another implementation.

        Args:
            height: of the whole image, pixels.
            width: of the whole image, pixels.
            rng: the generator of the views, in the same state.
        Returns:
            ``num_views`` plans ``(box, steps)``.
        """
        return self._plans(height, width, sampling.Draws(rng))

    @property
    def bicubic(self) -> bool:
        """Whether crops are resized by a cubic filter; otherwise by a linear one."""
        return self._interpolation.endswith("bicubic")

    @property
    def antialiased(self) -> bool:
        """Whether the filter of the resize widens when a crop shrinks."""
        return self._interpolation in ANTIALIASED

    def _factor(self, plans) -> int:
        side = min(min(box[2:]) for box, _ in plans) if self.antialiased else 0
        return next((factor for factor in _REDUCTIONS if side >= factor * MARGIN * self.img_size), 1)
