"""PyTorch's two file formats, written without PyTorch: what it would have pickled, byte by byte."""
import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import numpy as np

from passl_mixer.weights import torch_files

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage",
         "i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage", "b1": "BoolStorage"}


def fake_torch():
    """Modules with the names that PyTorch's pickles use."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in [*KINDS.values(), "BFloat16Storage"]:
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        def function(*_):
            raise AssertionError("only its name is used")
        function.__module__, function.__name__, function.__qualname__ = "torch._utils", name, name
        setattr(utils, name, function)
    return {"torch": torch, "torch._utils": utils}


TORCH = fake_torch()


class Storage:
    def __init__(self, array, kind=None):
        self.array, self.key = np.ascontiguousarray(array), str(id(self))
        self.kind = kind or KINDS[self.array.dtype.str[1:]]


class Tensor:
    """What PyTorch would have pickled for this part of a storage."""

    def __init__(self, array, kind=None, *, storage=None, offset=0, strides=None):
        array = np.asarray(array)
        self.storage = storage or Storage(array.ravel(), kind)
        self.part = offset, array.shape, strides or tuple(s // array.itemsize for s in np.zeros(
            array.shape, array.dtype).strides)

    def __reduce__(self):
        return TORCH["torch._utils"]._rebuild_tensor_v2, (
            self.storage, *self.part, False, collections.OrderedDict())


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return TORCH["torch._utils"]._rebuild_parameter, (self.tensor, True, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file, view=()):
        super().__init__(file, protocol=2)
        self.storages, self.view = {}, view

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages[value.key] = value
        return ("storage", getattr(TORCH["torch"], value.kind), value.key, "cpu", value.array.size, *self.view)


def dump(tree, **options):
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, TORCH):
        pickler = Pickler(file, **options)
        pickler.dump(tree)
    return file.getvalue(), pickler.storages


def save_zip(path, tree, root="archive/"):
    pickled, storages = dump(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}data.pkl", pickled)
        archive.writestr(f"{root}byteorder", "little")
        for key, storage in storages.items():
            archive.writestr(f"{root}data/{key}", storage.array.tobytes())
        archive.writestr(f"{root}version", "3\n")
    return path


def save_legacy(path, tree):
    pickled, storages = dump(tree, view=(None,))
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(part, 2) for part in (torch_files.MAGIC, torch_files.PROTOCOL, machine)]
    tail = [pickle.dumps(sorted(storages), 2)]
    for key in sorted(storages):
        tail.append(struct.pack("<q", storages[key].array.size) + storages[key].array.tobytes())
    path.write_bytes(b"".join([*head, pickled, *tail]))
    return path
