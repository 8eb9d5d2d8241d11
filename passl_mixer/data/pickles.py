"""Pickled arrays read without running anything: arrays of numbers or text and plain containers, nothing else.

``pickle.load`` calls whatever a file names. Here a file can name only what an array is made of, and gets a
stand-in of ours for each: NumPy's own ``__setstate__`` methods trust their input too much to be handed a
stranger's. Any other name ends the reading before anything is called.
"""
import io
import pickle
from collections import OrderedDict

import numpy as np

from passl_mixer.errors import BadInput


def _text(value) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _names() -> tuple:
    """``({(module, name): stand-in}, class of the array stand-ins)``, made anew for every file.

    A pickle may set attributes of what it named; it can only spoil its own copies.
    """
    class ArrayClass:
        pass

    class Kind:
        def __init__(self, name, align=False, copy=False):
            self.dtype = np.dtype(_text(name))
            if self.dtype.kind not in "biufcSU":
                raise pickle.UnpicklingError(f"an array of {self.dtype}")

        def __setstate__(self, state):
            if _text(state[1]) in ("<", ">"):
                self.dtype = self.dtype.newbyteorder(_text(state[1]))

    class Array:
        value = None

        def __setstate__(self, state):
            _, shape, kind, fortran, data = state
            self.fill(data, kind, shape, "F" if fortran else "C")

        def fill(self, data, kind, shape, order):
            if type(kind) is not Kind or not isinstance(data, (bytes, bytearray)):
                raise pickle.UnpicklingError("an array made of something else than bytes")
            self.value = np.ndarray(shape, kind.dtype, buffer=bytes(data), order=_text(order)).copy()
            return self

    def reconstruct(subtype, shape, typecode):
        if subtype is not ArrayClass:
            raise pickle.UnpicklingError("an array subclass")
        return Array()  # shape, type and data follow with the state

    def encode(text, encoding):  # how Python 3 writes bytes in protocol 2
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"the encoding {encoding!r}")
        return text.encode("latin1")

    def no_bytes():  # how Python 3 writes empty bytes in protocol 2
        return b""

    names = {("__builtin__", "bytes"): no_bytes, ("builtins", "bytes"): no_bytes,
             ("numpy", "ndarray"): ArrayClass, ("numpy", "dtype"): Kind,
             ("_codecs", "encode"): encode, ("collections", "OrderedDict"): OrderedDict}
    for core in ("numpy.core", "numpy._core"):
        names[(f"{core}.multiarray", "_reconstruct")] = reconstruct
        names[(f"{core}.multiarray", "scalar")] = lambda kind, data: Array().fill(data, kind, (), "C")
        names[(f"{core}.numeric", "_frombuffer")] = lambda data, kind, shape, order: Array().fill(
            data, kind, shape, order)
    return names, Array


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.names, self.array_class = _names()

    def find_class(self, module, name):
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.names[(module, name)]

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to something outside the file")


def _arrays_for_stand_ins(value, array_class, done: dict):
    """``value`` with real arrays in place of the stand-ins; lists and dicts are changed in place."""
    if id(value) in done:
        return done[id(value)]
    if type(value) is array_class:
        return value.value
    done[id(value)] = value  # also what ends a container that holds itself
    if isinstance(value, dict):
        for key in list(value):
            value[key] = _arrays_for_stand_ins(value[key], array_class, done)
    elif isinstance(value, list):
        value[:] = [_arrays_for_stand_ins(v, array_class, done) for v in value]
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_arrays_for_stand_ins(v, array_class, done) for v in value)
        # The old tuple must outlive this walk: a new object at its address would be taken for it.
        done.setdefault("kept", []).append(value)
    elif not isinstance(value, (int, float, complex, str, bytes, bytearray, type(None), set, frozenset)):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
    return done[id(value)]


def load_arrays(data: bytes, where: str):
    """Read a pickle of arrays and plain containers.

    Args:
        data: the bytes of the pickle.
        where: the file's name, for messages.
    Returns:
        What was pickled, array scalars as arrays of no dimension; byte strings of Python 2 stay bytes.
    Raises:
        BadInput: the pickle names anything else (nothing of it has run), or is damaged.
    """
    try:
        reader = _Reader(data)
        return _arrays_for_stand_ins(reader.load(), reader.array_class, {})
    except pickle.UnpicklingError as error:
        raise BadInput(f"{where} is a damaged pickle, or one with more than arrays in it: {error}; "
                       "nothing of it was run. Expected NumPy arrays and plain containers") from error
    except Exception as error:  # a damaged pickle can fail in any way, and all mean the same to the user
        raise BadInput(f"{where} is a damaged pickle ({type(error).__name__}: {error}); "
                       "get the file again") from error
