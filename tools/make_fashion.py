"""Writes the pictures of the data set fashion_mnist_small to passl_mixer/data/assets.

python tools/make_fashion.py FOLDER       (with Fashion-MNIST's official *-ubyte.gz; Debian: dataset-fashion-mnist)

``fashion_mnist_more.png``: of the training part, the first 1,500 images of each class, in the official order, that are
not in fashion_mnist_mini.npz. ``fashion_mnist_test.png``: of the test part, the first 500 of each class. Each is one
gray picture of 10 columns of images: column c holds class c, so that labels need no file.
"""
import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ASSETS = Path(__file__).resolve().parents[1] / "passl_mixer" / "data" / "assets"
CLASSES, SIDE = 10, 28


def read(folder: Path, part: str) -> tuple:
    """Images [N, 28, 28] and labels [N] of the official files; ``part`` is train or t10k. Headers: 16 and 8 bytes."""
    images, labels = ((folder / f"{part}-{name}-ubyte.gz").read_bytes() for name in ("images-idx3", "labels-idx1"))
    return (np.frombuffer(gzip.decompress(images), np.uint8)[16:].reshape(-1, SIDE, SIDE),
            np.frombuffer(gzip.decompress(labels), np.uint8)[8:])


def write(name: str, images, labels, rows: int) -> None:
    """Write the first ``rows`` images of each class as a picture."""
    grid = np.stack([images[labels == c][:rows] for c in range(CLASSES)], axis=1)       # [rows, CLASSES, SIDE, SIDE]
    picture = grid.transpose(0, 2, 1, 3).reshape(rows * SIDE, CLASSES * SIDE)
    Image.fromarray(picture).save(ASSETS / name, optimize=True)
    print(f"{name}: {rows * CLASSES} images, {(ASSETS / name).stat().st_size} bytes")


def main(folder: Path) -> None:
    """Choose the images and write both pictures."""
    images, labels = read(folder, "train")
    with np.load(ASSETS / "fashion_mnist_mini.npz", allow_pickle=False) as mini:
        packaged = {image.tobytes() for key in ("train_images", "test_images") for image in mini[key]}
    is_new = np.array([image.tobytes() not in packaged for image in images])
    if is_new.sum() != len(images) - len(packaged):
        sys.exit(f"{folder} has not each packaged image once; expected the official files of Fashion-MNIST")
    write("fashion_mnist_more.png", images[is_new], labels[is_new], 1500)
    write("fashion_mnist_test.png", *read(folder, "t10k"), 500)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
