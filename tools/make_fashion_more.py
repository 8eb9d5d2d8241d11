"""Writes passl_mixer/data/assets/fashion_mnist_more.png: 15,000 more training images of Fashion-MNIST.

python tools/make_fashion_more.py FOLDER       (with the official files train-*-ubyte.gz; Debian: dataset-fashion-mnist)

The images are the first 1,500 of each class, in the official order, that are not in fashion_mnist_mini.npz. The file is
one gray picture of 1,500 rows and 10 columns of images: column c holds class c, so the labels need no file.
"""
import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ASSETS = Path(__file__).resolve().parents[1] / "passl_mixer" / "data" / "assets"
ROWS, CLASSES, SIDE = 1500, 10, 28
HEADERS = {"images": 16, "labels": 8}       # bytes before the values of an IDX file


def read(folder: Path, what: str) -> np.ndarray:
    """The bytes of an official file of the training part: ``what`` is images or labels."""
    name = f"train-{what}-idx{3 if what == 'images' else 1}-ubyte.gz"
    return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8)[HEADERS[what]:]


def main(folder: Path) -> None:
    """Choose the images and write the picture."""
    images, labels = read(folder, "images").reshape(-1, SIDE, SIDE), read(folder, "labels")
    with np.load(ASSETS / "fashion_mnist_mini.npz", allow_pickle=False) as mini:
        packaged = {image.tobytes() for key in ("train_images", "test_images") for image in mini[key]}
    is_new = np.array([image.tobytes() not in packaged for image in images])
    if is_new.sum() != len(images) - len(packaged):
        sys.exit(f"{folder} has not each packaged image once; expected the official files of Fashion-MNIST")
    columns = [images[is_new & (labels == c)][:ROWS] for c in range(CLASSES)]
    grid = np.stack(columns, axis=1)                                                # [ROWS, CLASSES, SIDE, SIDE]
    picture = grid.transpose(0, 2, 1, 3).reshape(ROWS * SIDE, CLASSES * SIDE)
    target = ASSETS / "fashion_mnist_more.png"
    Image.fromarray(picture).save(target, optimize=True)
    print(f"{target}: {ROWS * CLASSES} images, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
