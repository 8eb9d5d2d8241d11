"""The views of ``plans.py`` as an NVIDIA DALI pipeline; imported only with DALI. Not run on a GPU yet.

Each operation is that of ``transforms.py``. Two are composed of DALI's operators: hue in HSV (DALI's own is in YIQ)
and contrast around the gray mean. Conditions on an image's row of ``dali_plans.py`` select its colour steps and their
order.

Deviations, measured in docs/data.md: crops are not rounded to 8 bits between the passes of a resize; hue and
saturation are not rounded in between; a GPU decodes JPEGs by nvJPEG.

Shapes: x is one image, uint8 [H, W, 3]; row is float32 [NUM_COLUMNS], on the host.
"""
from collections.abc import Iterable
from typing import Optional

import numpy as np
from nvidia.dali import fn, math, pipeline_def, types

from passl_mixer.data import dali_plans as columns
from passl_mixer.data import transforms


def build_pipeline(source: Iterable, *, batch_size: int, num_views: int, size: int, bicubic: bool,
                   num_threads: int, device_id: Optional[int]):
    """A pipeline from encoded files and rows to views.

    Args:
        source: yields batches ``(files, rows of the first view, ...)``: a list of uint8 [bytes] arrays, and float32
            [B, NUM_COLUMNS] per view.
        batch_size: images per batch, at most.
        num_views: views of an image.
        size: side of the views, pixels.
        bicubic: whether crops are resized by a cubic filter; otherwise by a linear one.
        num_threads: threads of DALI.
        device_id: number of the GPU; None: the CPU.
    Returns:
        A ``Pipeline`` whose ``run()`` returns uint8 [B, size, size, 3] per view, as lists of tensors. It takes two more
        batches from the source than it has returned.
    """
    decoder = "cpu" if device_id is None else "mixed"
    sampling = types.INTERP_CUBIC if bicubic else types.INTERP_LINEAR

    @pipeline_def(batch_size=batch_size, num_threads=num_threads, device_id=device_id, seed=0, enable_conditionals=True,
                  prefetch_queue_depth=2)
    def pipeline():
        files, *rows = fn.external_source(source=source, num_outputs=1 + num_views)
        image = fn.decoders.image(files, device=decoder, output_type=types.RGB, jpeg_fancy_upsampling=True)
        return tuple(_view(_cut(image, row, size, sampling), row) for row in rows)

    return pipeline()


def _cut(image, row, size, sampling):
    box = _whole(row[columns.BOX])
    x = fn.slice(image, start=box[0:2], shape=box[2:4], axes=[0, 1])
    return fn.resize(x, size=[size, size], interp_type=sampling, antialias=True)


def _view(x, row):
    x = fn.flip(x, horizontal=_whole(row[columns.FLIP]))
    for position in range(columns.NUM_COLORS):
        x = _color(x, row[columns.KINDS.start + position], row[columns.AMOUNTS.start + position])
    if row[columns.WINDOW] > 1:
        x = fn.gaussian_blur(x, window_size=_whole(row[columns.WINDOW]), sigma=row[columns.SIGMA])
    if row[columns.SOLARIZE] > 0:
        x = math.min(x, types.Constant(255).uint8() - x)
    return x


def _whole(number):
    return fn.cast(number, dtype=types.INT32)


def _color(x, kind, amount):
    if kind == columns.BRIGHTNESS:
        x = _levels(x * amount)
    elif kind == columns.CONTRAST:
        x = _levels(x * amount + _luma(fn.reductions.mean(x, axes=[0, 1], keep_dims=True)) * (1.0 - amount))
    elif kind == columns.SATURATION:
        x = _levels(x * amount + _levels(_luma(x)) * (1.0 - amount))
    elif kind == columns.HUE:
        x = _levels(_turned(x, amount))
    return x


def _levels(x):
    return fn.cast(x, dtype=types.UINT8)  # rounds, and clips to 0..255


def _luma(x):
    red, green, blue = transforms.GRAY_WEIGHTS
    return x[:, :, 0:1] * red + x[:, :, 1:2] * green + x[:, :, 2:3] * blue


def _turned(x, turns):
    """The colours with their hue turned, through HSV. Hue counts from 0, red, over 2, green, and 4, blue, to 6."""
    red, green, blue = (fn.cast(x[:, :, k:k + 1], dtype=types.FLOAT) for k in range(3))
    value = math.max(math.max(red, green), blue)
    chroma = value - math.min(math.min(red, green), blue)
    unit = math.max(chroma, 1.0)  # gray has no hue, and any will do
    is_red = fn.cast(value == red, dtype=types.FLOAT)
    is_green = fn.cast(value == green, dtype=types.FLOAT) * (1.0 - is_red)
    is_blue = 1.0 - is_red - is_green
    hue = (is_red * (green - blue) + is_green * (blue - red) + is_blue * (red - green)) / unit
    hue = hue + 2.0 * is_green + 4.0 * is_blue + 6.0 * turns
    starts = types.Constant(np.float32([5, 3, 1]).reshape(1, 1, 3), device=x.device)  # of red, green and blue
    position = hue + starts
    around = position - 6.0 * math.floor(position * (1.0 / 6.0))
    # a channel is at its full value in a third of the circle, at its least in another, and linear between them
    return value - chroma * math.clamp(math.min(around, 4.0 - around), 0.0, 1.0)
