"""The plan of one view (``plans.py``) as a row of numbers, for a DALI pipeline.

Columns: ``BOX`` top, left, height, width of the crop in pixels; ``FLIP`` 1 to mirror; ``KINDS`` and ``AMOUNTS`` of the
colour steps in their order; ``WINDOW`` (1: none) and ``SIGMA`` of the blur; ``SOLARIZE`` 1 to solarise. All fit a
float32 exactly or nearly.
"""
import numpy as np

from passl_mixer.data import transforms
from passl_mixer.errors import BadInput

NOTHING, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(5)
NUM_COLORS = 5  # the jitter's four and gray
BOX, FLIP = slice(0, 4), 4
KINDS, AMOUNTS = slice(5, 5 + NUM_COLORS), slice(5 + NUM_COLORS, 5 + 2 * NUM_COLORS)
WINDOW, SIGMA, SOLARIZE = (AMOUNTS.stop + k for k in range(3))
NUM_COLUMNS = SOLARIZE + 1

_FACTORS = {transforms.brightness: BRIGHTNESS, transforms.contrast: CONTRAST, transforms.saturation: SATURATION}


def to_row(plan: tuple, size: int, recipe: str) -> np.ndarray:
    """A plan as numbers.

    Args:
        plan: ``(box, steps)`` of one view.
        size: side of the view, pixels.
        recipe: its name, for messages.
    Returns:
        float32 [NUM_COLUMNS].
    Raises:
        BadInput: a step or an order of steps that the pipeline does not support.
    """
    (top, left, height, width), steps = plan
    row = np.zeros(NUM_COLUMNS, np.float32)
    row[BOX], row[WINDOW], row[SIGMA] = (top, left, height, width), 1, 1.0
    colors = []
    for transform, *amounts in steps:
        if transform is transforms.flip:
            row[FLIP] = 1 - row[FLIP]  # commutes with every other step
        elif row[SOLARIZE] or (row[WINDOW] > 1 and transform is not transforms.solarize):
            raise _unknown(recipe, f"{transform.__name__} after the blur or solarize")
        elif transform is transforms.gaussian_blur:
            row[WINDOW], row[SIGMA] = transforms.blur_window(size, *amounts), amounts[0]
        elif transform is transforms.solarize:
            row[SOLARIZE] = 1
        else:
            colors.append(_color(transform, amounts, recipe))
    if len(colors) > NUM_COLORS:
        raise _unknown(recipe, f"{len(colors)} colour steps, more than {NUM_COLORS},")
    for position, (kind, amount) in enumerate(colors):
        row[KINDS.start + position], row[AMOUNTS.start + position] = kind, amount
    return row


def _color(transform, amounts, recipe: str) -> tuple:
    if transform is transforms.grayscale:
        return SATURATION, 0.0
    if transform is transforms.hue:
        shift = round(256 * amounts[0]) % 256  # as transforms.hue rounds it
        return (HUE, shift / 256) if shift else (NOTHING, 0.0)
    if transform not in _FACTORS:
        raise _unknown(recipe, transform.__name__)
    return _FACTORS[transform], amounts[0]


def _unknown(recipe: str, what: str) -> BadInput:
    return BadInput(f"data.loader 'dali' cannot make the views of {recipe}: its plan has {what}; expected flip, up to "
                    f"{NUM_COLORS} of brightness, contrast, saturation, hue and grayscale, then blur, then solarize; "
                    "use -o data.loader=threads")
