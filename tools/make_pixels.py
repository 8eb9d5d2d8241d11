"""Writes tests/golden/pixels.npz: what torchvision v2 makes of small PIL images, for the tests of the views.

python tools/make_pixels.py tests/golden/pixels.npz       (in an environment with PyTorch, torchvision and Pillow)

Keys: ``source/<i>``, uint8 [H, W, 3]; ``eval/<i>/<interpolation>/<resize>/<size>``, ``Resize(resize)`` and
``CenterCrop(size)`` of it; ``crop/<i>/<interpolation>/<top>/<left>/<height>/<width>/<size>``, ``resized_crop`` of it;
``versions``, text. It imports nothing of this project.
"""
import json
import sys
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers.torch_networks import import_torchvision

SIZES = ((57, 83), (50, 33), (31, 31), (14, 60))    # (height, width)
EVALUATIONS = ((32, 28), (20, 16), (16, 16))        # (resize, size)
SIDE = 16                                           # of the training crops


def picture(height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """Noise with the spectrum of photographs, and a bright box for its sharp edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1.0
    spectra = np.fft.fft2(draw.standard_normal([3, height, width])) / frequency
    spectra[:, 0, 0] = 0.0
    noise = np.fft.ifft2(spectra).real
    image = 128 + 50 * (noise / noise.std()).transpose(1, 2, 0)
    image[height // 4:height // 2, width // 3:2 * width // 3] += 70
    return image.clip(0, 255).astype(np.uint8)


def boxes(height: int, width: int, draw: np.random.Generator):
    """The whole image and three parts of it, (top, left, height, width)."""
    yield 0, 0, height, width
    for share in (0.1, 0.3, 0.7):
        h, w = max(1, round(height * share**0.5)), max(1, round(width * share**0.5))
        yield int(draw.integers(height - h + 1)), int(draw.integers(width - w + 1)), h, w


def main() -> None:
    """Make the pictures and write the file."""
    import_torchvision()
    import torchvision
    from torchvision.transforms import v2

    modes = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
    draw = np.random.default_rng(0)
    versions = {"torchvision": torchvision.__version__, "torch": torch.__version__, "pillow": PIL.__version__}
    arrays = {"versions": np.array(json.dumps(versions))}
    for i, size in enumerate(SIZES):
        source = picture(*size, draw)
        image, cuts = Image.fromarray(source), list(boxes(*size, draw))
        arrays[f"source/{i}"] = source
        for name, mode in modes.items():
            for resize, side in EVALUATIONS:
                made = v2.Compose([v2.Resize(resize, interpolation=mode, antialias=True), v2.CenterCrop(side)])(image)
                arrays[f"eval/{i}/{name}/{resize}/{side}"] = np.asarray(made)
            for box in cuts:
                made = v2.functional.resized_crop(image, *box, [SIDE, SIDE], interpolation=mode, antialias=True)
                arrays["/".join(["crop", str(i), name, *map(str, box), str(SIDE)])] = np.asarray(made)
    np.savez_compressed(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
