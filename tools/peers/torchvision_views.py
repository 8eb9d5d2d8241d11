"""Times torchvision's transforms (v2, on PIL images) on the recipes of ``passl_mixer.data.views``.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with PyTorch, torchvision and Pillow; it
imports nothing of this project. On standard input the first line is a JSON object

    {"recipe": "simclr" | "moco_v2" | "byol", "files": [paths of images],
     "size": 224, "images": 16, "blur": "torchvision" | "pil", "seed": 0}

of which ``recipe`` and ``files`` are required. Every further line is one measured step; its seconds are printed as one
line. A step takes ``images`` files, going round the list, from their bytes in memory to two float32 tensors [3, size,
size], scaled to 0..1 and, for the recipes that do so, normalised: what a user of torchvision hands to a
``DataLoader``. One thread.

``blur``: torchvision's ``GaussianBlur``, or Pillow's ``ImageFilter.GaussianBlur`` (three box filters, much cheaper),
which the reference code of MoCo v2 uses. Ranges and probabilities are the papers' (see ``passl_mixer/data/views.py``).
Filters are the ones that our recipes take by default, antialiased, as torchvision always is on PIL images.
"""
import io
import json
import random
import sys
import time

import torch
from PIL import Image, ImageFilter

try:
    from torchvision.transforms import v2
except RuntimeError:
    # Where its compiled part does not fit the PyTorch beside it, torchvision stops at two operators that have no name
    # then. No transform uses them.
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    for _name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[_name]
    from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC, BILINEAR = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR
#           crop_min, interpolation, jitter, normalise, (blur_p, solarize_p) of each view
RECIPES = {
    "simclr": (0.08, BICUBIC, (0.8, 0.8, 0.8, 0.2), False, ((0.5, 0.0), (0.5, 0.0))),
    "moco_v2": (0.2, BILINEAR, (0.4, 0.4, 0.4, 0.1), True, ((0.5, 0.0), (0.5, 0.0))),
    "byol": (0.08, BICUBIC, (0.4, 0.4, 0.2, 0.1), True, ((1.0, 0.0), (0.1, 0.2))),
}


def pil_blur(image):
    """Pillow's Gaussian blur with the radius that MoCo v2 draws."""
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def build(recipe: str, size: int, blur: str) -> list:
    """The transforms of the two views: functions from a PIL image to float32 [3, size, size]."""
    crop_min, interpolation, jitter, normalise, pair = RECIPES[recipe]
    blurring = v2.GaussianBlur(2 * (size // 10 // 2) + 1, (0.1, 2.0)) if blur == "torchvision" else v2.Lambda(pil_blur)
    views = []
    for blur_p, solarize_p in pair:
        steps = [v2.RandomResizedCrop(size, scale=(crop_min, 1.0), interpolation=interpolation, antialias=True),
                 v2.RandomHorizontalFlip(),
                 v2.RandomApply([v2.ColorJitter(*jitter)], p=0.8),
                 v2.RandomGrayscale(p=0.2),
                 v2.RandomApply([blurring], p=blur_p)]
        if solarize_p:
            steps.append(v2.RandomSolarize(threshold=128, p=solarize_p))
        steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        views.append(v2.Compose(steps + [v2.Normalize(MEAN, STD)] if normalise else steps))
    return views


def main() -> None:
    """Read the set-up, then measure one step a line."""
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(1)
    torch.manual_seed(setup.get("seed", 0))
    random.seed(setup.get("seed", 0))
    files = []
    for path in setup["files"]:
        with open(path, "rb") as file:
            files.append(file.read())
    views = build(setup["recipe"], setup.get("size", 224), setup.get("blur", "torchvision"))
    count, position = setup.get("images", 16), 0
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(count):
            image = Image.open(io.BytesIO(files[position % len(files)])).convert("RGB")
            position += 1
            made = [view(image) for view in views]
        seconds = time.perf_counter() - started
        assert all(view.shape[1:] == made[0].shape[1:] for view in made)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
