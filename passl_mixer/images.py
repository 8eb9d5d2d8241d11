"""Batches of uint8 images as input tensors of networks.  Shapes: B images, H x W pixels."""
import functools

import numpy as np
import paddle


def as_tensor(array) -> paddle.Tensor:
    """A NumPy array [...] as a tensor on the current device; a tensor, which was copied early, as it is."""
    return array if paddle.is_tensor(array) else paddle.to_tensor(array)


def to_images(views_u8, mean, std) -> paddle.Tensor:
    """Normalise uint8 images to a float32 tensor [B, 3, H, W].

    Args:
        views_u8: RGB pixels [B, H, W, 3], 0-255; array or tensor.
        mean, std: per channel, in units where white is 1.
    """
    batch, height, width, channels = views_u8.shape
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width, paddle.get_device())
    # one long row per line of pixels: Paddle's CPU kernels broadcast a row fast and [1, 3, 1, 1] slowly
    rows = as_tensor(views_u8).reshape([batch * height, width * channels]).astype("float32")
    rows = rows * scale + shift
    return rows.reshape([batch, height, width, channels]).transpose([0, 3, 1, 2])


@functools.lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple, std: tuple, width: int, _device: str) -> tuple:
    """Scale and shift of a row of pixels, [W * 3] each; cached, so that a GPU gets them once."""
    scale = np.tile(1.0 / (255.0 * np.asarray(std, np.float32)), width)
    shift = np.tile(-np.asarray(mean, np.float32) / np.asarray(std, np.float32), width)
    return paddle.to_tensor(scale), paddle.to_tensor(shift)
