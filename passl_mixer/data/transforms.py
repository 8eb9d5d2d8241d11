"""Image operations on uint8 [H, W, 3] RGB arrays, each a function of its arguments alone.

Definitions are torchvision's for 8-bit images. Crops are resized by Pillow (``resampling.py``), as torchvision resizes
PIL images. The other operations are OpenCV's, with saturating integer results. The differences are small: results are
rounded to the nearest integer where PIL truncates; the mean in ``contrast`` is not rounded; hue is shifted in OpenCV's
8-bit HSV, 256 steps per turn as in PIL, with OpenCV's rounding.

Speed: colours, flip and blur are one to three passes of OpenCV over bytes. The blur leaves out weights that cannot
change a level.
"""
import math

import cv2
import numpy as np

from passl_mixer.data.resampling import RESAMPLERS, resize_part

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of R, G, B
_NO_BLUR = 0.25  # sigma, pixels: under it the neighbours' weights add up to less than half of one level in 255


def resized_crop(image, box, size: int, interpolation: str, reduction: int = 1) -> np.ndarray:
    """Cut a box and resize it to a square; the filter reads no pixel outside the box.

    Args:
        image: uint8 [H, W, 3].
        box: (top, left, height, width) in pixels of the whole image, inside it.
        size: side of the result in pixels.
        interpolation: a name of ``RESAMPLERS``.
        reduction: sides of the whole image over those of ``image``; above 1, ``interpolation`` is one of
            ``ANTIALIASED``, and the box may have fractional edges in ``image``.
    Returns:
        uint8 [size, size, 3]. Without a reduction, the pixels of torchvision's ``resized_crop`` of a PIL image.
    """
    top, left, height, width = box
    if reduction == 1:
        return RESAMPLERS[interpolation](image[top:top + height, left:left + width], size)
    edges = tuple(edge / reduction for edge in (top, left, top + height, left + width))
    return resize_part(image, edges, size, interpolation)


def center_crop(image, size: int, resize: int, interpolation: str = "bicubic") -> np.ndarray:
    """Scale the short side to ``resize`` pixels, then cut the central square of ``size <= resize`` pixels.

    Args:
        image: uint8 [H, W, 3].
        size: side of the result, pixels.
        resize: length of the short side first, pixels; the long side is rounded down.
        interpolation: one of ``ANTIALIASED``.
    Returns:
        uint8 [size, size, 3]: torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` of a PIL image. Only the
        square's pixels are computed, so a number close to a half may be rounded the other way (mean difference under
        0.05 levels), and the order of Pillow's passes may be another on very tall images (0.25).
    """
    height, width = image.shape[:2]
    short = min(height, width)
    rows, columns = resize * height // short, resize * width // short
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    if (rows, columns) == (height, width):
        return image[top:top + size, left:left + size]
    down, across = height / rows, width / columns
    edges = (top * down, left * across, (top + size) * down, (left + size) * across)
    return resize_part(image, edges, size, interpolation, beyond=True)


def flip(image) -> np.ndarray:
    """Mirror an image [H, W, 3] left to right."""
    return cv2.flip(image, 1)


def brightness(image, factor: float) -> np.ndarray:
    """``factor * image`` of an image [H, W, 3], clipped to 0..255; ``factor`` is 0 or more."""
    return cv2.convertScaleAbs(image, alpha=factor)


def contrast(image, factor: float) -> np.ndarray:
    """``factor * image + (1 - factor) * mean gray level`` of an image [H, W, 3], clipped."""
    red, green, blue, _ = cv2.mean(image)
    mean = GRAY_WEIGHTS[0] * red + GRAY_WEIGHTS[1] * green + GRAY_WEIGHTS[2] * blue
    return cv2.addWeighted(image, factor, image, 0.0, (1.0 - factor) * mean)


def grayscale(image) -> np.ndarray:
    """The luma (ITU-R BT.601) of an image [H, W, 3] in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def saturation(image, factor: float) -> np.ndarray:
    """``factor * image + (1 - factor) * grayscale(image)`` of an image [H, W, 3], clipped."""
    gray = grayscale(image)
    return cv2.addWeighted(image, factor, gray, 1.0 - factor, 0.0, dst=gray)


def hue(image, turns: float) -> np.ndarray:
    """Rotate the hue of an image [H, W, 3] by ``turns`` of the colour circle (-0.5..0.5) in 8-bit HSV."""
    shift = round(turns * 256) % 256
    if shift == 0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    row = np.zeros(3 * image.shape[1], np.uint8)
    row[::3] = shift
    rows = hsv.reshape(len(hsv), -1)  # adding whole rows of bytes is quicker than to every third byte
    rows += row                       # wraps at 256, a full turn
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def blur_kernel_size(side: int) -> int:
    """Odd size near a tenth of the image side: 23 for 224 px, 3 for 28 and 32 px (SimCLR's ``data_util.py``)."""
    return 2 * (side // 10 // 2) + 1


def blur_window(side: int, sigma: float) -> int:
    """Odd size of the kernel of ``gaussian_blur`` for an image of ``side`` pixels; 1 changes nothing.

    The kernel ends at four sigma if that is less than a tenth of the side; the rest is under 1e-4 of the weight.
    """
    return 1 if sigma < _NO_BLUR else min(blur_kernel_size(side), 2 * math.ceil(4 * sigma) + 1)


def gaussian_blur(image, sigma: float) -> np.ndarray:
    """Gaussian blur of an image [H, W, 3], kernel of ``blur_window``, borders mirrored; ``sigma`` in pixels."""
    window = blur_window(image.shape[0], sigma)
    if window == 1:
        return image
    kernel = cv2.getGaussianKernel(window, sigma)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


def solarize(image) -> np.ndarray:
    """Invert the values of an image [H, W, 3] that are 128 and above."""
    return cv2.min(image, cv2.bitwise_not(image))
