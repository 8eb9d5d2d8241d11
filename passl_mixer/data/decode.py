"""Decoding of image files to uint8 RGB; large JPEGs at a fraction of their size if the views need no more.

A JPEG stores 8x8 blocks of frequencies. A decoder that leaves out the upper ones yields the image 2, 4 or 8 times
smaller per side, for less work (measured in docs/data.md). The size is read from the header first, so that random
crops can be drawn before decoding, in pixels of the whole image.

Source: ITU-T T.81 (JPEG), annex B (markers); Exif 2.3, section 4.6.4 (orientation).
"""
from typing import Callable, Optional

import cv2
import numpy as np

_FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
          8: cv2.IMREAD_REDUCED_COLOR_8}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers; the three are tables
_ORIENTATION = 0x0112


def decode(data: bytes, reduction: int = 1) -> Optional[np.ndarray]:
    """Decode an image file.

    Args:
        data: the whole file.
        reduction: 1, 2, 4 or 8; sides come out divided by it, rounded up (JPEG).
    Returns:
        uint8 [H, W, 3] RGB, EXIF orientation applied; None if it is not an image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[reduction]) if data else None
    except cv2.error:  # e.g. a header that claims more pixels than OpenCV accepts
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def whole(height: int, width: int) -> int:
    """A ``reduction`` for ``decode_reduced`` that keeps the whole image, of ``height`` x ``width`` pixels."""
    return 1


def decode_reduced(data: bytes, reduction: Callable) -> Optional[tuple]:
    """Decode an image file at a fraction of its size.

    Args:
        data: the whole file.
        reduction: function of the whole image's (height, width), pixels; returns 1, 2, 4 or 8.
    Returns:
        ``(image uint8 [H, W, 3] RGB, (height, width) of the whole image)``; None if it is not an image. Only JPEGs are
        reduced.
    """
    size = jpeg_size(data)
    factor = 1 if size is None else reduction(*size)
    if factor > 1:
        image = decode(data, factor)
        # A header that OpenCV reads otherwise than we do: the whole image is the truth then.
        if image is not None and image.shape[:2] == tuple(-(-side // factor) for side in size):
            return image, size
    image = decode(data)
    return None if image is None else (image, image.shape[:2])


def jpeg_size(data: bytes) -> Optional[tuple]:
    """``(height, width)`` of a decoded JPEG in pixels, EXIF orientation applied; None for any other file."""
    if data[:2] != b"\xff\xd8":
        return None
    position, turned = 2, None  # the first Exif block counts
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _FRAMES:
            height, width = (int.from_bytes(data[position + k:position + k + 2], "big") for k in (5, 7))
            if height == 0 or width == 0:
                return None
            return (width, height) if turned else (height, width)
        else:
            end = position + 2 + int.from_bytes(data[position + 2:position + 4], "big")
            if turned is None and marker == 0xE1 and data[position + 4:position + 10] == b"Exif\0\0":
                turned = _orientation(data[position + 10:end]) >= 5  # 5 to 8 turn by 90 degrees
            position = end
    return None


def _orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, from a TIFF header and its first directory; 1 if there is none."""
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return 1
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start:start + 2], order)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[entry:entry + 2], order) == _ORIENTATION:
            value = int.from_bytes(tiff[entry + 8:entry + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1
