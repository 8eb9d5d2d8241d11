"""PyTorch checkpoints without PyTorch, and without running code from the file.

``torch.save`` has two formats. Zip (since 1.6): the entry ``<folder>/data.pkl`` is the pickle, ``<folder>/data/<key>``
the bytes of a storage. Legacy: one stream of five pickles (magic number, protocol, machine, object, keys of the
storages), then every storage as its length and its bytes. In both, a pickled tensor is a call of
``torch._utils._rebuild_tensor_v2`` on a part of a storage. Source: pytorch/pytorch, torch/serialization.py.
"""
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Dict

import numpy

from passl_mixer.pickles import Reader, StandIn, array_names, finished, text

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# bfloat16 has no NumPy type: its 16 bits are the upper half of a float32
STORAGES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
            "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
            "ByteStorage": "u1", "BoolStorage": "?"}


def widen_bfloat16(bits: numpy.ndarray) -> numpy.ndarray:
    """Convert bfloat16 numbers, given as uint16 [...], to float32 of the same shape."""
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


class Storage:
    """A flat array of the file; ``fill`` sets ``values`` to its content."""

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it changes a storage")

    def __init__(self, kind: str, length: int):
        self.kind, self.length, self.values = kind, length, None
        self.dtype = numpy.dtype("u2" if kind == "bfloat16" else kind)
        self.num_bytes = length * self.dtype.itemsize

    def fill(self, content: bytes, big_endian: bool) -> None:
        """Set the values from the bytes of the file.

        Raises:
            UnpicklingError: another number of bytes.
        """
        if len(content) != self.num_bytes:
            raise pickle.UnpicklingError(f"a storage of {len(content)} bytes instead of {self.num_bytes}")
        values = numpy.frombuffer(content, self.dtype.newbyteorder(">" if big_endian else "<")).astype(self.dtype)
        self.values = widen_bfloat16(values) if self.kind == "bfloat16" else values


class Tensor(StandIn):
    """A part of a storage.

    Args:
        storage: a ``Storage``.
        offset: of the first element.
        shape: of the tensor.
        strides: in elements.
    """

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it changes a tensor")

    def __init__(self, storage, offset, shape, strides):
        self.part = storage, offset, shape, strides

    def array(self) -> numpy.ndarray:
        """The array, a copy.

        Raises:
            UnpicklingError: the tensor reaches outside the storage or is larger than it.
        """
        storage, offset, shape, strides = self.part
        numbers = (offset, *shape, *strides)
        if type(storage) is not Storage or len(shape) != len(strides) or len(shape) > 32 or any(
                type(n) is not int or n < 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor that is not a part of a storage")
        size = 1
        for length in shape:
            size *= length
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides)) if size else 0
        if size > storage.values.size or (size and last >= storage.values.size):
            raise pickle.UnpicklingError("a tensor that reaches outside its storage")
        if not size:
            return numpy.zeros(shape, storage.values.dtype)
        item = storage.values.itemsize
        return numpy.lib.stride_tricks.as_strided(
            storage.values[offset:], shape, [stride * item for stride in strides], writeable=False).copy()


class _File:
    """The names that a PyTorch pickle may use, and the storages that it refers to; one for each file."""

    def __init__(self):
        self.storages: Dict[str, Storage] = {}
        self.names = array_names()
        self.kinds = {}
        for name, kind in STORAGES.items():
            # A marker has no content: its type of storage is looked up by identity.
            self.names["torch", name] = marker = object()
            self.kinds[id(marker)] = kind

        def tensor(storage, offset, shape, strides, *_hooks_and_metadata):
            return Tensor(storage, offset, tuple(shape), tuple(strides))

        def parameter(data, requires_grad, hooks):
            return data

        class Dropped(dict):
            """Training arguments, which many checkpoints have; not used here."""

            def __setstate__(self, state):
                pass

        self.names.update({("torch._utils", "_rebuild_tensor"): tensor, ("torch._utils", "_rebuild_tensor_v2"): tensor,
                           ("torch._utils", "_rebuild_parameter"): parameter, ("torch", "Size"): tuple,
                           ("argparse", "Namespace"): Dropped})

    def persistent(self, pid):
        word, marker, key, _, length, *view = pid
        known = text(word) == "storage" and id(marker) in self.kinds
        if not known or type(length) is not int or length < 0 or any(view):
            raise pickle.UnpicklingError("it refers to something else than a storage")
        return self.storages.setdefault(text(key), Storage(self.kinds[id(marker)], length))

    def load(self, file):
        return Reader(file, self.names, self.persistent).load()


def read_zip(path: Path, root: str):
    """The object that a file in the zip format has.

    Args:
        path: the file.
        root: the folder of ``data.pkl`` in it, with its slash.
    Returns:
        Plain containers and NumPy arrays.
    Raises:
        UnpicklingError: a storage of the wrong size; a damaged file can raise others (see ``pickles.reading``).
    """
    file = _File()
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        big_endian = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        with archive.open(f"{root}data.pkl") as pickled:
            tree = file.load(pickled)
        for key, storage in file.storages.items():
            if archive.getinfo(f"{root}data/{key}").file_size != storage.num_bytes:  # before it is unpacked
                raise pickle.UnpicklingError(f"storage {key!r} does not have {storage.num_bytes} bytes")
            storage.fill(archive.read(f"{root}data/{key}"), big_endian)
    return finished(tree)


def is_legacy(path: Path) -> bool:
    """Whether a pickle begins with PyTorch's magic number."""
    with open(path, "rb") as stream:
        return stream.read(16).startswith(b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little"))


def read_legacy(path: Path):
    """The object that a file in the legacy format has; as ``read_zip``.

    Raises:
        UnpicklingError: not this format, or a storage of the wrong size; others as in ``read_zip``.
    """
    file = _File()
    with open(path, "rb") as stream:
        magic, protocol, machine = (file.load(stream) for _ in range(3))
        if magic != MAGIC or protocol != PROTOCOL:
            raise pickle.UnpicklingError("not the magic number and protocol of PyTorch")
        tree = file.load(stream)
        for key in file.load(stream):
            storage = file.storages[text(key)]
            (length,) = struct.unpack("<q" if machine["little_endian"] else ">q", stream.read(8))
            if length != storage.length:
                raise pickle.UnpicklingError(f"storage {key!r} has {length} numbers instead of {storage.length}")
            storage.fill(stream.read(storage.num_bytes), not machine["little_endian"])
    return finished(tree)
