"""Image operations as TensorFlow computes them, on float32 [H, W, 3] RGB arrays of about 0..1.

The official SimCLR and BYOL use them: google-research/simclr ``tf2/data_util.py``, google-deepmind/deepmind-research
``byol/utils/augmentations.py`` and ``dataset.py``, and TensorFlow's operators below. A view begins with
``tensorflow_resize.py``, bytes to floats, and ends with ``to_bytes``, the only rounding.

Each is a function of its arguments alone. Values are TensorFlow's within 1e-5, after a clip where they leave 0..1.
Speed: one to six passes of OpenCV.
"""
import math

import cv2
import numpy as np

from passl_mixer.data.transforms import blur_kernel_size

GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of tf.image.rgb_to_grayscale, and of BYOL
_GRAY = np.float32([GRAY_WEIGHTS] * 3)
_NO_BLUR = 0.2  # sigma, pixels: under it a neighbour's weight is under 4e-6


def clip(image) -> np.ndarray:
    """Clip an image [H, W, 3] to 0..1."""
    return np.clip(image, 0.0, 1.0)


def multiply(image, factor: float) -> np.ndarray:
    """SimCLR's brightness: ``factor * image`` of an image [H, W, 3], clipped."""
    return clip(image * np.float32(factor))


def add(image, delta: float) -> np.ndarray:
    """BYOL's brightness, TensorFlow's ``adjust_brightness``: ``image + delta`` of an image [H, W, 3], clipped."""
    return clip(image + np.float32(delta))


def contrast(image, factor: float) -> np.ndarray:
    """TensorFlow's ``adjust_contrast``: ``factor * image + (1 - factor) * mean``, clipped; [H, W, 3], mean [3]."""
    red, green, blue, _ = cv2.mean(image)
    rest = 1.0 - factor
    matrix = [(factor, 0.0, 0.0, rest * red), (0.0, factor, 0.0, rest * green), (0.0, 0.0, factor, rest * blue)]
    return clip(cv2.transform(image, np.array(matrix, np.float32)))


def saturation(image, factor: float) -> np.ndarray:
    """TensorFlow's ``adjust_saturation`` of an image [H, W, 3]: in HSV times ``factor``, at most 1. 0..1 stays 0..1."""
    hsv = _to_hsv(image)
    channel = hsv[..., 1]
    channel *= np.float32(factor)
    np.minimum(channel, 1.0, out=channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def hue(image, turns: float) -> np.ndarray:
    """TensorFlow's ``adjust_hue`` of an image [H, W, 3]: rotated in HSV by ``turns``, -0.5..0.5. 0..1 stays 0..1."""
    hsv = _to_hsv(image)
    channel = hsv[..., 0]
    channel += np.float32(360.0 * (turns % 1.0))  # OpenCV goes on with the circle upwards only
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _to_hsv(image) -> np.ndarray:
    """Hue in degrees, saturation, value, [H, W, 3].

    A negative value, which the final clip makes black, becomes 0 here: OpenCV's conversion back would lose its sign.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    value = hsv[..., 2]
    np.maximum(value, 0.0, out=value)
    return hsv


def grayscale(image) -> np.ndarray:
    """The luma of an image [H, W, 3] in all three channels."""
    return cv2.transform(image, _GRAY)


def gaussian_blur(image, sigma: float) -> np.ndarray:
    """Gaussian blur of an image [H, W, 3], kernel a tenth of its side, zeros beyond the border; ``sigma`` in pixels.

    The kernel ends at four sigma if that is less, as in ``transforms.gaussian_blur``.
    """
    if sigma < _NO_BLUR:
        return image
    window = min(blur_kernel_size(image.shape[0]), 2 * math.ceil(4 * sigma) + 1)
    kernel = cv2.getGaussianKernel(window, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)


def solarize(image) -> np.ndarray:
    """Invert the values of an image [H, W, 3] that are 0.5 and above."""
    return cv2.min(image, np.float32(1.0) - image)


def to_bytes(image) -> np.ndarray:
    """Round an image [H, W, 3] from float32 0..1 to uint8; values beyond are clipped."""
    return cv2.addWeighted(image, 255.0, image, 0.0, 0.0, dtype=cv2.CV_8U)
