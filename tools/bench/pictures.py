"""Pictures to measure views with: made, as photographs cannot come along, with the spectrum that photographs have."""
from pathlib import Path

import cv2
import numpy as np

QUALITIES = (90, 95)        # of JPEG, alternating; OpenCV writes 4:2:0


def picture(height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """One picture, uint8 [height, width, 3]: 1/f noise in three related channels, and filled shapes over it.

    Args:
        height, width: pixels.
        draw: where the randomness comes from.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(draw.standard_normal([height, width])) / frequency
        spectrum[0, 0] = 0.0
        noise = np.fft.irfft2(spectrum, s=(height, width))
        channels.append(noise / noise.std())
    gray = channels[0]
    image = np.stack([0.8 * gray + 0.4 * channel for channel in channels], axis=-1) * 45 + draw.uniform(80, 170, 3)
    image = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    for _ in range(6):
        centre = (int(draw.integers(width)), int(draw.integers(height)))
        axes = tuple(int(v) for v in draw.integers(4, max(5, height // 5), 2))
        colour = tuple(int(v) for v in draw.integers(0, 256, 3))
        cv2.ellipse(image, centre, axes, float(draw.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return image


def write_jpegs(folder: Path, count: int, *, height: int = 375, width: int = 500) -> list:
    """Write ``count`` JPEG files; returns their paths, as text."""
    draw, paths = np.random.default_rng(0), []
    for i in range(count):
        path = folder / f"{i:04d}.jpg"
        quality = QUALITIES[i % len(QUALITIES)]
        if not cv2.imwrite(str(path), picture(height, width, draw), [cv2.IMWRITE_JPEG_QUALITY, quality]):
            raise OSError(f"cannot write {path}")
        paths.append(str(path))
    return paths


def write_small(path: Path, count: int, size: int) -> None:
    """Write ``count`` square pictures as one array, uint8 [count, size, size, 3]."""
    draw = np.random.default_rng(0)
    np.save(path, np.stack([picture(size, size, draw) for _ in range(count)]))
