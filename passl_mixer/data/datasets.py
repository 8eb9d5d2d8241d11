"""Datasets without a folder: the packaged sample of Fashion-MNIST and generated patterns.

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
MINI_IMAGES, MORE_IMAGES = 5000, 15000        # in the two files of training images


def check_split(split: str) -> None:
    """Check the name of a split.

    Raises:
        BadInput: neither "train" nor "test".
    """
    if split not in SPLITS:
        raise BadInput(f"dataset split is {split!r}, expected 'train' or 'test'")


class FashionMnistMini:
    """Up to 20,000 training and 1,000 test images of Fashion-MNIST, 28x28, gray repeated to three channels.

    Both splits are drawn from the training part of Fashion-MNIST, so the official test set stays unseen. The first
    5,000 training images have 500 of each class; every ten after them have one of each.

    Args:
        images: number of training images, the first of 20,000.
        split: "train" or "test".
    Raises:
        BadInput: another split, or a number of images out of range.
    """

    def __init__(self, *, images: int = 5000, split: str = "train"):
        check_split(split)
        if not 1 <= images <= MINI_IMAGES + MORE_IMAGES:
            raise BadInput(f"dataset 'fashion_mnist_mini': images is {images}, expected 1 to "
                           f"{MINI_IMAGES + MORE_IMAGES}")
        self.split, self.class_names = split, list(FASHION_CLASSES)
        self._images = images

    def load(self) -> None:
        """Read the packaged files."""
        with np.load(ASSETS / "fashion_mnist_mini.npz", allow_pickle=False) as arrays:
            self._gray = arrays[f"{self.split}_images"]
            self.labels = arrays[f"{self.split}_labels"].astype(np.int64)
        if self.split == "test":
            return
        if self._images > MINI_IMAGES:
            gray, labels = _more_images()
            self._gray, self.labels = np.concatenate([self._gray, gray]), np.concatenate([self.labels, labels])
        self._gray, self.labels = self._gray[:self._images], self.labels[:self._images]

    def __len__(self) -> int:
        return len(self._gray)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [28, 28, 3]."""
        return cv2.cvtColor(self._gray[index], cv2.COLOR_GRAY2RGB)


def _more_images() -> tuple:
    """The images beyond the first 5,000, uint8 [15000, 28, 28], and their labels: one picture, a column per class."""
    with Image.open(ASSETS / "fashion_mnist_more.png") as picture:
        grid = np.asarray(picture)                                                  # [1500 * 28, 10 * 28]
    classes = len(FASHION_CLASSES)
    gray = grid.reshape(-1, 28, classes, 28).transpose(0, 2, 1, 3).reshape(-1, 28, 28)
    return gray, np.arange(len(gray)) % classes


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
DATASETS.add("synthetic", Synthetic)
