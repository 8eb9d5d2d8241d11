"""Datasets without a folder: the packaged samples of Fashion-MNIST and generated patterns.

All datasets of this package have the same interface. The constructor is cheap and raises ``BadInput`` if the data
cannot be there; ``load()`` reads it. After ``load()``: ``len()``, ``image(index)`` (uint8 [H, W, 3], RGB), ``labels``
(int64 [N] or None), ``class_names`` (list or None).

Source: Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747 (MIT licence, assets/FASHION_MNIST_LICENSE.txt).
"""
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from passl_mixer.data.loader import rng
from passl_mixer.errors import BadInput
from passl_mixer.registry import DATASETS

ASSETS = Path(__file__).parent / "assets"
FASHION_CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                   "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SPLITS = ("train", "test")


def check_split(split: str) -> None:
    """Check the name of a split.

    Raises:
        BadInput: neither "train" nor "test".
    """
    if split not in SPLITS:
        raise BadInput(f"dataset split is {split!r}, expected 'train' or 'test'")


class FashionMnistMini:
    """5,000 training and 1,000 test images of Fashion-MNIST, 28x28, gray repeated to three channels.

    Both splits are drawn from the training part of Fashion-MNIST, so the official test set stays unseen.

    Args:
        split: "train" or "test".
    """

    def __init__(self, *, split: str = "train"):
        check_split(split)
        self.split, self.class_names = split, list(FASHION_CLASSES)

    def load(self) -> None:
        """Read the packaged file."""
        self._gray, self.labels = _mini(self.split)

    def __len__(self) -> int:
        return len(self._gray)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [28, 28, 3]."""
        return cv2.cvtColor(self._gray[index], cv2.COLOR_GRAY2RGB)


class FashionMnistSmall:
    """20,000 training and 5,000 test images of Fashion-MNIST, 28x28, gray repeated to three channels.

    The first 5,000 training images are those of ``fashion_mnist_mini``. The test images are from the official test set,
    as many of each class.

    Args:
        split: "train" or "test".
    """

    def __init__(self, *, split: str = "train"):
        check_split(split)
        self.split, self.class_names = split, list(FASHION_CLASSES)

    def load(self) -> None:
        """Read the packaged files."""
        if self.split == "test":
            self._gray, self.labels = _picture("fashion_mnist_test.png")
            return
        parts = zip(_mini("train"), _picture("fashion_mnist_more.png"))
        self._gray, self.labels = (np.concatenate(pair) for pair in parts)

    def __len__(self) -> int:
        return len(self._gray)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [28, 28, 3]."""
        return cv2.cvtColor(self._gray[index], cv2.COLOR_GRAY2RGB)


def _mini(split: str) -> tuple:
    """Images, uint8 [N, 28, 28], and labels, int64 [N], of a split of ``fashion_mnist_mini``."""
    with np.load(ASSETS / "fashion_mnist_mini.npz", allow_pickle=False) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int64)


def _picture(name: str) -> tuple:
    """Images, uint8 [N, 28, 28], and labels, int64 [N], of a gray picture with a column of images per class."""
    with Image.open(ASSETS / name) as picture:
        grid = np.asarray(picture)                                                      # [N / 10 * 28, 10 * 28]
    classes = len(FASHION_CLASSES)
    gray = grid.reshape(-1, 28, classes, 28).transpose(0, 2, 1, 3).reshape(-1, 28, 28)
    return gray, np.arange(len(gray), dtype=np.int64) % classes


class Synthetic:
    """Generated images of learnable classes: a coloured low-frequency pattern per class, shifted, dimmed, with noise.

    For tests and for speed measurements without a disk. The same options give the same images on every machine. The
    splits share the class patterns and differ in shifts and noise.

    Args:
        num_images: images in the training split.
        num_test_images: images in the test split.
        img_size: side in pixels.
        num_classes: C; the label of image i is i modulo C.
        seed: of patterns, shifts and noise.
        split: "train" or "test".
    Raises:
        BadInput: another split, or a number below 1.
    """

    def __init__(self, *, num_images: int = 1024, num_test_images: int = 256, img_size: int = 32,
                 num_classes: int = 10, seed: int = 0, split: str = "train"):
        check_split(split)
        for key, value in (("num_images", num_images), ("num_test_images", num_test_images),
                           ("img_size", img_size), ("num_classes", num_classes)):
            if value < 1:
                raise BadInput(f"dataset 'synthetic': {key} is {value}, expected at least 1")
        self._count = num_images if split == "train" else num_test_images
        self._split, self._seed, self._size, self._classes = SPLITS.index(split), seed, img_size, num_classes
        self.labels = np.arange(self._count, dtype=np.int64) % num_classes
        self.class_names = [f"pattern_{i}" for i in range(num_classes)]

    def load(self) -> None:
        """Generate the class patterns and a bank of noise; ``image`` composes the images."""
        draw = rng(self._seed, -3, 0)  # negative epochs: never the draws of an augmentation
        coarse = draw.integers(0, 256, (self._classes, 5, 5, 3), dtype=np.uint8)
        side = (self._size, self._size)
        self._patterns = [cv2.resize(c, side, interpolation=cv2.INTER_CUBIC) for c in coarse]
        self._noise = draw.integers(0, 64, (8, self._size, self._size, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [img_size, img_size, 3]."""
        draw = rng(self._seed, -1 - self._split, index)
        down, right = (int(v * self._size / 4) for v in draw.random(2))
        pattern = np.roll(self._patterns[index % self._classes], (down, right), (0, 1))
        noise = self._noise[int(draw.random() * len(self._noise))]
        return cv2.addWeighted(pattern, 0.4 + 0.4 * draw.random(), noise, 1.0, 0.0)


DATASETS.add("fashion_mnist_mini", FashionMnistMini)
DATASETS.add("fashion_mnist_small", FashionMnistSmall)
DATASETS.add("synthetic", Synthetic)
