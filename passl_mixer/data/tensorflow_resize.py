"""TensorFlow's cubic resize, without antialiasing, as products with sparse matrices.

Few rows: one product. Many rows: one for every eight rows of the result and the input rows that they need. Products are
small enough to stay on one thread of NumPy's library, so that the loader's threads do not wait for each other.
"""
import functools

import cv2
import numpy as np

_PHASES = 1024               # TensorFlow looks the kernel up in a table of as many steps a pixel
_KEYS = -0.5                 # the kernel's free coefficient
_ONE_PRODUCT, _ROWS = 40, 8  # rows, of input and result
_MOST = 250_000              # multiplications in a product; OpenBLAS takes more threads from 262,144 on
_SPARSE = 0.7                # if the filter reads a smaller share of the samples, they are selected first


@functools.lru_cache(maxsize=1024)
def _filter(length: int, size: int) -> tuple:
    """The cubic filter from ``length`` samples to ``size``.

    Returns:
        ``(samples, bands)``: the samples that it reads, None for all, and the filter on them as a list of (output rows,
        input rows, weights).
    """
    indices, weights = _taps(length, size)
    used = np.unique(indices[weights != 0])
    if len(used) > _SPARSE * length:
        used = np.arange(length)
    bands, rows = [], size if max(size, length) <= _ONE_PRODUCT else _ROWS
    for first in range(0, size, rows):
        row, tap = np.nonzero(weights[first:first + rows])
        column = np.searchsorted(used, indices[first + row, tap])
        start, stop = int(column.min()), int(column.max()) + 1
        matrix = np.zeros((len(weights[first:first + rows]), stop - start), np.float32)
        matrix[row, column - start] = weights[first + row, tap]
        bands.append((slice(first, first + rows), slice(start, stop), matrix))
    return None if len(used) == length else used, bands


def _taps(length: int, size: int) -> tuple:
    """The four input samples of each output sample, int [size, 4], and their weights [size, 4], 0 beyond the edges."""
    step = np.float32(length) / np.float32(size)
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * step - np.float32(0.5)
    before = np.floor(centres)
    phases = np.rint((centres - before) * _PHASES) / _PHASES
    taps = np.arange(-1, 3)
    indices, x = before.astype(int)[:, None] + taps, np.abs(phases[:, None] - taps)
    weights = np.where(x <= 1, ((_KEYS + 2) * x - (_KEYS + 3)) * x * x + 1,
                       ((_KEYS * x - 5 * _KEYS) * x + 8 * _KEYS) * x - 4 * _KEYS)
    weights[(indices < 0) | (indices >= length)] = 0.0
    return indices, weights / weights.sum(1, keepdims=True)


def _resize_rows(image, size: int, bands: list) -> np.ndarray:
    """[H, W, 3] to float32 [size, W, 3]."""
    made = np.empty((size, image.shape[1], 3), np.float32)
    flat = made.reshape(size, -1)
    for target, source, weights in bands:
        rows = image[source].astype(np.float32, copy=False).reshape(weights.shape[1], -1)
        step = max(1, _MOST // weights.size)
        for start in range(0, rows.shape[1], step):
            np.matmul(weights, rows[:, start:start + step], out=flat[target, start:start + step])
    return made


def resize_bicubic(image, size: int) -> np.ndarray:
    """An image resized to a square by Keys' cubic kernel, as ``tf.image.resize(method="bicubic")`` of TensorFlow 2.

    Pixel centres are at halves. The filter does not widen when it reduces. Weights beyond the edge are left out; the
    others are normalised to sum to 1.

    Args:
        image: uint8 [H, W, 3].
        size: side of the result, pixels.
    Returns:
        float32 [size, size, 3], about 0..1; the kernel overshoots at edges.
    Source: ``tensorflow/core/kernels/image/resize_bicubic_op.cc`` with ``half_pixel_centers``.
    """
    (rows, down), (columns, across) = _filter(image.shape[0], size), _filter(image.shape[1], size)
    if rows is not None:
        image = image[rows]
    if columns is not None:
        image = image.take(columns, axis=1)
    made = _resize_rows(image, size, down)
    made *= np.float32(1.0 / 255.0)
    return cv2.transpose(_resize_rows(cv2.transpose(made), size, across))
