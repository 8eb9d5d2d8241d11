"""Pickles read without running code from the file: arrays of numbers or text and plain containers, nothing else.

``pickle.load`` calls any function that a file names. Here a file can name only the parts of an array, and each name is
resolved to a stand-in of ours: NumPy's own ``__setstate__`` methods do not check untrusted input. Any other name is an
error before anything is called.
"""
import contextlib
import io
import pickle

import numpy as np

from passl_mixer.errors import BadInput


class StandIn:
    """Placeholder of an array while the file is read."""

    def array(self) -> np.ndarray:
        """The array, after the whole file has been read.

        Raises:
            NotImplementedError: always; subclasses define it.
        """
        raise NotImplementedError


def text(value) -> str:
    """A string of the file, written by Python 2 or 3."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def array_names() -> dict:
    """``{(module, name): stand-in}`` of NumPy arrays and plain containers, new for every file.

    A pickle may set attributes of the objects that it names; it can only change its own copies.
    """
    class ArrayClass:
        pass

    class Mapping(dict):
        def __setstate__(self, state):
            """Attributes of an ordered dictionary (PyTorch keeps versions there) are dropped."""

    class Kind:
        def __init__(self, name, align=False, copy=False):
            self.dtype = np.dtype(text(name))
            if self.dtype.kind not in "biufcSU":
                raise pickle.UnpicklingError(f"an array of {self.dtype}")

        def __setstate__(self, state):
            if text(state[1]) in ("<", ">"):
                self.dtype = self.dtype.newbyteorder(text(state[1]))

    class Array(StandIn):
        value = None

        def __setstate__(self, state):
            _, shape, kind, fortran, data = state
            self.fill(data, kind, shape, "F" if fortran else "C")

        def fill(self, data, kind, shape, order):
            if type(kind) is not Kind or not isinstance(data, (bytes, bytearray)):
                raise pickle.UnpicklingError("an array made of something else than bytes")
            self.value = np.ndarray(shape, kind.dtype, buffer=bytes(data), order=text(order)).copy()
            return self

        def array(self):
            return self.value

    def reconstruct(subtype, shape, typecode):
        if subtype is not ArrayClass:
            raise pickle.UnpicklingError("an array subclass")
        return Array()  # shape, type and data follow with the state

    def encode(string, encoding):  # how Python 3 writes bytes in protocol 2
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"the encoding {encoding!r}")
        return string.encode("latin1")

    def no_bytes():  # how Python 3 writes empty bytes in protocol 2
        return b""

    names = {("__builtin__", "bytes"): no_bytes, ("builtins", "bytes"): no_bytes,
             ("__builtin__", "tuple"): tuple, ("builtins", "tuple"): tuple,
             ("numpy", "ndarray"): ArrayClass, ("numpy", "dtype"): Kind,
             ("_codecs", "encode"): encode, ("collections", "OrderedDict"): Mapping}
    for core in ("numpy.core", "numpy._core"):
        names[(f"{core}.multiarray", "_reconstruct")] = reconstruct
        names[(f"{core}.multiarray", "scalar")] = lambda kind, data: Array().fill(data, kind, (), "C")
        names[(f"{core}.numeric", "_frombuffer")] = lambda data, kind, shape, order: Array().fill(
            data, kind, shape, order)
    return names


class Reader(pickle.Unpickler):
    """Unpickler that resolves only the given names.

    Args:
        file: binary file at the beginning of a pickle; reading stops at the pickle's end.
        names: ``{(module, name): stand-in}``.
        persistent: function from a persistent id to its stand-in; None: the pickle may have none.
    """

    def __init__(self, file, names: dict, persistent=None):
        super().__init__(file, encoding="bytes")
        self.names, self.persistent = names, persistent

    def find_class(self, module, name):
        """The stand-in of a name.

        Raises:
            UnpicklingError: the name is not among the given ones.
        """
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.names[(module, name)]

    def persistent_load(self, pid):
        """The stand-in of an object outside the pickle.

        Raises:
            UnpicklingError: no ``persistent`` was given.
        """
        if self.persistent is None:
            raise pickle.UnpicklingError("it refers to something outside the file")
        return self.persistent(pid)


def finished(value, done=None):
    """``value`` with arrays in place of the stand-ins; lists and dictionaries are changed in place.

    Raises:
        UnpicklingError: an object that is neither an array nor a plain container.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, StandIn):
        done.setdefault("kept", []).append(value)
        done[id(value)] = type(value).array(value)  # not the instance's attribute: a pickle can set that
        return done[id(value)]
    done[id(value)] = value  # also what ends a container that holds itself
    if isinstance(value, dict):
        for key in list(value):
            value[key] = finished(value[key], done)
    elif isinstance(value, list):
        value[:] = [finished(v, done) for v in value]
    elif isinstance(value, tuple):
        done[id(value)] = tuple(finished(v, done) for v in value)
        # The old tuple must outlive this walk: a new object at its address would be taken for it.
        done.setdefault("kept", []).append(value)
    elif not isinstance(value, (int, float, complex, str, bytes, bytearray, type(None), set, frozenset)):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
    return done[id(value)]


@contextlib.contextmanager
def reading(where: str):
    """Context in which any error of reading becomes a ``BadInput`` that names the file ``where``.

    Raises:
        BadInput: the file is damaged, or has more than arrays in it.
    """
    try:
        yield
    except BadInput:
        raise
    except pickle.UnpicklingError as error:
        raise BadInput(f"{where} is a damaged pickle, or one with more than arrays in it: {error}; "
                       "nothing of it was run. Expected arrays and plain containers") from error
    except Exception as error:  # a damaged file can fail in any way, and all mean the same to the user
        raise BadInput(f"{where} is damaged ({type(error).__name__}: {error}); get the file again") from error


def load_arrays(data: bytes, where: str):
    """Read a pickle of arrays and plain containers.

    Args:
        data: the bytes of the pickle.
        where: the file's name, for messages.
    Returns:
        The pickled object. Array scalars become arrays of no dimension, ordered dictionaries become dictionaries; byte
        strings of Python 2 stay bytes.
    Raises:
        BadInput: the pickle names anything else (nothing of it has run), or is damaged.
    """
    with reading(where):
        return finished(Reader(io.BytesIO(data), array_names()).load())
