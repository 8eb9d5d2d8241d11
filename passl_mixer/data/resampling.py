"""Resizing by Pillow's filters, which widen when an image shrinks (antialiasing).

Pillow, because torchvision's transforms and the evaluation of published weights use it: the pixels are the same. Pillow
makes two passes, one along rows and one along columns, and rounds to 8 bits between them. From version 13 on it begins
with the one along columns where that saves a lot. Pillow releases the interpreter lock. A native kernel makes the same
pixels of whole crops in a third of the time.

Source: Pillow, ``src/libImaging/Resample.c``; bicubic is Keys 1981 with a = -0.5.
"""
import functools
import math
import sys
from typing import Optional

import numpy as np
import PIL
from PIL import Image

from passl_mixer.data.tensorflow_resize import resize_bicubic
from passl_mixer.errors import BadInput, nearest

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MAY_BEGIN_WITH_ROWS = int(PIL.__version__.split(".")[0]) >= 13
_SUPPORTS = {"bilinear": 1, "bicubic": 2}  # reach of the filter, pixels of the smaller of the two images


def _resize(image, height: int, width: int, name: str, box: Optional[tuple] = None) -> np.ndarray:
    """``image``, or its part ``box`` (left, top, right, bottom; floats), as uint8 [height, width, 3]."""
    source = Image.frombytes("RGB", image.shape[1::-1], image.tobytes())
    made = source.resize((width, height), _FILTERS[name], box)
    return np.frombuffer(made.tobytes(), np.uint8).reshape(height, width, 3).copy()  # Pillow's bytes are read-only


def _to_square(crop, size: int, name: str) -> np.ndarray:
    native = _native()
    if native is None:
        return _resize(crop, size, size, name)
    height, width, _ = crop.shape
    made = np.empty([size, size, 3], np.uint8)
    native.call("resize_pixels", np.ascontiguousarray(crop), made, height, width, size, int(name == "bicubic"),
                int(_rows_first(height, width, size)))
    return made


def _native():
    """The native kernels, or None: without them, and in a process without Paddle, which brings what they need."""
    if "paddle" not in sys.modules:
        return None
    from passl_mixer.ops import native

    return native if native.load() is not None else None


def _rows_first(height: int, width: int, size: int) -> bool:
    """Whether this Pillow makes the pass along columns first; seen on 2934 sizes with Pillow 13.0."""
    return _MAY_BEGIN_WITH_ROWS and height > size and height + size > 2 * width


# name -> function(crop uint8 [h, w, 3], side) -> [side, side, 3]: uint8, or float32 0..1 and beyond of "tf_bicubic"
RESAMPLERS = {name: functools.partial(_to_square, name=name) for name in _FILTERS}
RESAMPLERS["tf_bicubic"] = resize_bicubic
ANTIALIASED = frozenset(_FILTERS)  # the others read single pixels and need the whole image


def antialiased(interpolation: str) -> str:
    """Check the name of an antialiasing resampler and return it.

    Raises:
        BadInput: not one of ``ANTIALIASED``.
    """
    if interpolation not in ANTIALIASED:
        raise BadInput(f"views option 'interpolation' is {interpolation!r}{nearest(interpolation, ANTIALIASED)}")
    return interpolation


def resize_part(image, edges: tuple, size: int, name: str, *, beyond: bool = False) -> np.ndarray:
    """Resize a part of an image with fractional edges.

    Args:
        image: uint8 [H, W, 3].
        edges: (top, left, bottom, right) in pixels of ``image``, floats inside it.
        size: side of the result, pixels.
        name: one of ``ANTIALIASED``.
        beyond: whether the filter reads pixels outside the part, as if the whole image were resized and then cut;
            otherwise it reads only pixels that the part touches.
    Returns:
        uint8 [size, size, 3].
    """
    top, left, bottom, right = edges
    down = across = 0
    if beyond:
        reach = _SUPPORTS[name]
        down, across = (1 + math.ceil(reach * max(1.0, side / size)) for side in (bottom - top, right - left))
    first, start = max(0, math.floor(top) - down), max(0, math.floor(left) - across)
    part = image[first:math.ceil(bottom) + down, start:math.ceil(right) + across]
    return _resize(part, size, size, name, (left - start, top - first, right - start, bottom - first))
