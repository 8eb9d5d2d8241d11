"""Times torchvision's transforms (v2) on the recipes of ``passl_mixer.data.views``, on PIL images or on tensors.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with PyTorch, torchvision and Pillow; it
imports nothing of this project's package. The set-up:

    {"recipe": "simclr" | "moco_v2" | "byol", "files": [paths of images], "on": "pil" | "tensor",
     "size": 224, "images": 16, "blur": "torchvision" | "pil", "seed": 0}

of which ``recipe`` and ``files`` are required. A step takes ``images`` files, going round the list, from their bytes in
memory to two float32 tensors [3, size, size], scaled to 0..1 and, for the recipes that do so, normalised: what a user
of torchvision hands to a ``DataLoader``. One thread.

``on``: what the transforms get, PIL images, or uint8 tensors. Both are decoded by Pillow; for tensors,
``torchvision.io.decode_jpeg`` is taken where torchvision's C++ operators are there. ``blur``, for PIL images:
torchvision's ``GaussianBlur``, or Pillow's ``ImageFilter.GaussianBlur`` (three box filters, much cheaper), which the
reference code of MoCo v2 uses. Filters are the ones that our recipes take by default, antialiased.
"""
import io
import random
import sys

import protocol
import torch
import view_recipes
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
import torchvision
from torchvision.io import ImageReadMode, decode_jpeg


def pil_blur(image):
    """Pillow's Gaussian blur with the radius that MoCo v2 draws."""
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*view_recipes.SIGMAS)))


def build(recipe: str, size: int, blur: str) -> list:
    """The transforms of the two views: functions from a PIL image or a uint8 tensor to float32 [3, size, size]."""
    crop_min, interpolation, jitter, normalise, pair = view_recipes.RECIPES[recipe]
    blurring = v2.Lambda(pil_blur) if blur == "pil" else v2.GaussianBlur(2 * (size // 10 // 2) + 1, view_recipes.SIGMAS)
    views = []
    for blur_p, solarize_p in pair:
        steps = [v2.RandomResizedCrop(size, scale=(crop_min, 1.0), interpolation=v2.InterpolationMode(interpolation),
                                      antialias=True),
                 v2.RandomHorizontalFlip(),
                 v2.RandomApply([v2.ColorJitter(*jitter)], p=view_recipes.JITTER_P),
                 v2.RandomGrayscale(p=view_recipes.GRAY_P),
                 v2.RandomApply([blurring], p=blur_p)]
        if solarize_p:
            steps.append(v2.RandomSolarize(threshold=128, p=solarize_p))
        steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        views.append(v2.Compose(steps + [v2.Normalize(view_recipes.MEAN, view_recipes.STD)] if normalise else steps))
    return views


def pil_image(data: bytes):
    """The image of a file, decoded by Pillow."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def tensor_by_pillow(data: bytes):
    """uint8 [3, H, W], decoded by Pillow."""
    return v2.functional.pil_to_tensor(pil_image(data))


def tensor_by_torchvision(data: bytes):
    """uint8 [3, H, W], decoded by torchvision's C++ operators."""
    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def decoder(on: str):
    """``(decode, its name)`` for what the transforms get."""
    if on == "pil":
        return pil_image, "Pillow"
    if hasattr(torch.ops.image, "decode_jpeg"):
        return tensor_by_torchvision, "torchvision.io"
    return tensor_by_pillow, "Pillow, torchvision's C++ operators are missing"


def main() -> None:
    """Read the set-up, then measure one step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    torch.set_num_threads(1)
    torch.manual_seed(setup.get("seed", 0))
    random.seed(setup.get("seed", 0))
    decode, name = decoder(setup.get("on", "pil"))
    views = build(setup["recipe"], setup.get("size", 224), setup.get("blur", "torchvision"))
    view_recipes.serve(channel, decode, views, {"torch": torch.__version__, "torchvision": torchvision.__version__,
                                                "decoder": name})


if __name__ == "__main__":
    main()
