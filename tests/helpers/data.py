"""Loaders, JPEGs and pickles for the tests of data."""
import struct

import numpy as np

from passl_mixer.data import Loader, build_views


def loader_of(dataset, views, **options) -> Loader:
    """A loader; batches of two, shuffled, on no thread, unless ``options`` say otherwise."""
    given = {"batch_size": 2, "seed": 3, "num_workers": 0, "shuffle": True, "drop_last": True, **options}
    return Loader(dataset, build_views(views), **given)


def assert_same_batches(batches, others) -> None:
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for (views, labels), (other_views, other_labels) in zip(batches, others):
        assert all(np.array_equal(a, b) for a, b in zip(views, other_views))
        assert np.array_equal(labels, other_labels)


def with_exif(jpeg: bytes, orientation: int, order: str = "<", entries=((0x010F, 7),)) -> bytes:
    """A JPEG with an Exif block in front: other entries, then the orientation."""
    rows = [struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in (*entries, (0x0112, orientation))]
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(rows))
    block = b"Exif\0\0" + tiff + b"".join(rows) + struct.pack(order + "I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


class Hostile:
    """What a pickle may name to run a function when it is read."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced
