"""Times albumentations on the recipes of ``passl_mixer.data.views``, on arrays that OpenCV decodes.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with albumentations, which brings OpenCV,
and PyTorch; it imports nothing of this project's package. The set-up:

    {"recipe": "simclr" | "moco_v2" | "byol", "files": [paths of images], "size": 224, "images": 16, "seed": 0}

of which ``recipe`` and ``files`` are required. A step takes ``images`` files, going round the list, from their bytes in
memory to two float32 tensors [3, size, size] (``ToTensorV2``): what a user hands to a ``DataLoader``. One thread.

Ranges, probabilities and the kind of the filter (linear, cubic) are those of the recipes, the rest is as a user finds
it. So it computes less than torchvision and this project do: crops shrink without antialiasing, the kernel of the blur
ends at 3.5 sigma, and saturation and hue are tables and OpenCV's 8-bit HSV.
"""
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"       # it would ask the network for a newer release

# isort: split
import albumentations as A
import cv2
import numpy as np
import protocol
import torch
import view_recipes
from albumentations.pytorch import ToTensorV2

FILTERS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def build(recipe: str, size: int, seed: int) -> list:
    """The transforms of the two views: functions from uint8 [H, W, 3] to float32 tensors [3, size, size]."""
    crop_min, interpolation, jitter, normalise, pair = view_recipes.RECIPES[recipe]
    mean, std = (view_recipes.MEAN, view_recipes.STD) if normalise else ((0.0,) * 3, (1.0,) * 3)
    factors = [(max(0.0, 1.0 - strength), 1.0 + strength) for strength in jitter[:3]]
    views = []
    for number, (blur_p, solarize_p) in enumerate(pair):
        steps = [A.RandomResizedCrop((size, size), scale=(crop_min, 1.0), interpolation=FILTERS[interpolation]),
                 A.HorizontalFlip(p=0.5),
                 A.ColorJitter(*factors, hue=(-jitter[3], jitter[3]), p=view_recipes.JITTER_P),
                 A.ToGray(p=view_recipes.GRAY_P),
                 A.GaussianBlur(sigma_limit=view_recipes.SIGMAS, p=blur_p)]
        if solarize_p:
            steps.append(A.Solarize(threshold_range=(0.5, 0.5), p=solarize_p))
        transform = A.Compose([*steps, A.Normalize(mean, std), ToTensorV2()], seed=seed + number)
        views.append(lambda image, transform=transform: transform(image=image)["image"])
    return views


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3] RGB, decoded by OpenCV."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def main() -> None:
    """Read the set-up, then measure one step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    views = build(setup["recipe"], setup.get("size", 224), setup.get("seed", 0))
    view_recipes.serve(channel, decode, views, {"albumentations": A.__version__, "opencv": cv2.__version__})


if __name__ == "__main__":
    main()
