"""Image operations on uint8 [H, W, 3] RGB arrays, each a function of its arguments alone.

Definitions are torchvision's for 8-bit images, computed by OpenCV with saturating integer results. The
differences are small: results are rounded to the nearest integer where PIL truncates; the mean in
``contrast`` is not rounded; hue is shifted in OpenCV's 8-bit HSV, 256 steps per turn as in PIL, with
OpenCV's rounding; ``resized_crop`` averages areas when it halves both sides or more, where plain sampling
would alias, and samples otherwise (PIL always widens its filter when it reduces).

Speed: each is one to three passes of OpenCV over bytes. The blur leaves out weights that cannot change a level.
"""
import math

import cv2
import numpy as np

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of R, G, B
_NO_BLUR = 0.25  # sigma, pixels: under it the neighbours' weights add up to less than half of one level in 255


def resized_crop(image, box, size: int, interpolation: int, reduction: int = 1) -> np.ndarray:
    """Cut a box and resize it to a square, in one step.

    Args:
        image: uint8 [H, W, 3].
        box: (top, left, height, width) in pixels of the whole image, inside it.
        size: side of the result in pixels.
        interpolation: an OpenCV flag, e.g. ``cv2.INTER_CUBIC``; unused when both sides of the box shrink to half.
        reduction: how many times smaller per side ``image`` is than the whole image; the box's edges are multiples
            of it or the image's edges.
    Returns:
        uint8 [size, size, 3].
    """
    top, left, height, width = box
    bottom, right = top + height, left + width
    if reduction > 1:
        top, left, bottom, right = top // reduction, left // reduction, -(-bottom // reduction), -(-right // reduction)
    if height >= 2 * size and width >= 2 * size:
        interpolation = cv2.INTER_AREA
    return cv2.resize(image[top:bottom, left:right], (size, size), interpolation=interpolation)


def center_crop(image, size: int, resize: int) -> np.ndarray:
    """Scale the short side to ``resize`` pixels, then cut the central square of ``size <= resize`` pixels."""
    height, width = image.shape[:2]
    # Cut first, then resize: the same part of the image, and nothing is computed to be thrown away.
    cut = max(1, round(min(height, width) * size / resize))
    box = (round((height - cut) / 2), round((width - cut) / 2), cut, cut)
    return resized_crop(image, box, size, cv2.INTER_CUBIC)


def flip(image) -> np.ndarray:
    """Mirror left and right."""
    return cv2.flip(image, 1)


def brightness(image, factor: float) -> np.ndarray:
    """``factor * image``, clipped to 0..255; ``factor`` is 0 or more."""
    return cv2.convertScaleAbs(image, alpha=factor)


def contrast(image, factor: float) -> np.ndarray:
    """``factor * image + (1 - factor) * mean gray level of the image``, clipped."""
    red, green, blue, _ = cv2.mean(image)
    mean = GRAY_WEIGHTS[0] * red + GRAY_WEIGHTS[1] * green + GRAY_WEIGHTS[2] * blue
    return cv2.addWeighted(image, factor, image, 0.0, (1.0 - factor) * mean)


def grayscale(image) -> np.ndarray:
    """Luma (ITU-R BT.601) in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def saturation(image, factor: float) -> np.ndarray:
    """``factor * image + (1 - factor) * grayscale(image)``, clipped."""
    gray = grayscale(image)
    return cv2.addWeighted(image, factor, gray, 1.0 - factor, 0.0, dst=gray)


def hue(image, turns: float) -> np.ndarray:
    """Rotate the hue by ``turns`` of the colour circle (-0.5..0.5) in 8-bit HSV."""
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
    """Odd size near a tenth of the image side: 23 for 224 px, 3 for 28 and 32 px (SimCLR's
    ``data_util.py``)."""
    return 2 * (side // 10 // 2) + 1


def blur_window(side: int, sigma: float) -> int:
    """Odd size of the kernel that ``gaussian_blur`` takes for an image of ``side`` pixels; 1 changes nothing.

    The kernel ends at four sigma where a tenth of the side is more: what it leaves out is under 1e-4 of the weight.
    """
    return 1 if sigma < _NO_BLUR else min(blur_kernel_size(side), 2 * math.ceil(4 * sigma) + 1)


def gaussian_blur(image, sigma: float) -> np.ndarray:
    """Gaussian blur, kernel a tenth of the image side (``blur_window``), borders mirrored; ``sigma`` in pixels."""
    window = blur_window(image.shape[0], sigma)
    if window == 1:
        return image
    kernel = cv2.getGaussianKernel(window, sigma)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


def solarize(image) -> np.ndarray:
    """Invert the values of 128 and above."""
    return cv2.min(image, cv2.bitwise_not(image))
