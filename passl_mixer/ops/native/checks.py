"""Calls into the native library: every argument against its declaration, then C's return code as an exception.

What is refused here is a defect of this package, not an input of its user: ``TypeError`` for another kind or dtype,
``ValueError`` for what is too large, too small or not dense. A call costs about a microsecond a tensor.
"""
import ctypes
import math

import numpy as np
import paddle

from passl_mixer.ops.native.signatures import DERIVED, QUESTIONS, signatures

DTYPES = {"float32": (paddle.float32,), "uint8": (paddle.uint8,), "bits32": (paddle.float32, paddle.int32),
          "bf16": (paddle.bfloat16,)}
INTEGERS = ctypes.POINTER(ctypes.c_int64)
ADDRESSES = ctypes.POINTER(ctypes.c_void_p)
TYPES = {"int": ctypes.c_int64, "float": ctypes.c_float, "int64": INTEGERS, "list": ADDRESSES,
         **dict.fromkeys(DTYPES, ctypes.c_void_p)}
NO_MEMORY, BAD_SIZES, NO_PRODUCTS, REFUSED = 1, 2, 3, 4     # as in common.h


class Count:
    """A product of some of a call's numbers, from its text in the table: "2*rows*half"."""

    def __init__(self, text: str, places: dict):
        factors = text.removesuffix("..").split("*") if text else []
        self.text, self.or_more = text, text.endswith("..")
        self.constant = math.prod(int(factor) for factor in factors if factor.isdigit())
        self.places = [places[factor] for factor in factors if not factor.isdigit()]

    def of(self, numbers) -> int:
        count = self.constant
        for place in self.places:
            count *= numbers[place]
        return count


class Function:
    """One function of the native library with its declaration.

    Args:
        compiled: the function of the library; its types are declared here.
        name: of the function, for messages.
        parameters: from ``signatures``.
        derived: a ``Derived`` whose numbers the counts use, or None.
    """

    def __init__(self, compiled, name: str, parameters: tuple, derived):
        compiled.argtypes, compiled.restype = [TYPES[p.kind] for p in parameters], ctypes.c_int
        self.compiled, self.name, self.derived, self.parameters = compiled, name, derived, parameters
        places = {p.name: place for place, p in enumerate(parameters)}
        self.inputs = [places[name] for name in derived.inputs] if derived else []
        for place, name in enumerate(derived.names if derived else ()):
            places[name] = len(parameters) + place
        self.counts = [Count(p.count, places) for p in parameters]
        self.lengths = [Count(p.number, places) for p in parameters]
        self.scalars = [(place, {"int": int, "float": float}[p.kind], p) for place, p in enumerate(parameters)
                        if p.kind in ("int", "float")]
        self.arrays = [place for place, p in enumerate(parameters) if p.kind == "int64"]
        self.lists = [place for place, p in enumerate(parameters) if p.kind == "list"]
        self.tensors = [(place, DTYPES[p.kind], self.counts[place], p) for place, p in enumerate(parameters)
                        if p.kind in DTYPES]

    def __call__(self, *arguments) -> None:
        """Run it; tensors go by address.

        Raises:
            TypeError, ValueError: an argument that is not as declared, or sizes that do not fit together.
            MemoryError: no memory for the function's working rows.
            RuntimeError: a function that needs MKL, in a Paddle without it.
        """
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{self.name}: got {len(arguments)} arguments, expected {len(self.parameters)}: "
                            f"{', '.join(p.name for p in self.parameters)}")
        passed = list(arguments)
        for place, kind, p in self.scalars:
            value = arguments[place]
            if type(value) is not kind:
                raise TypeError(f"{self.name}: {p.name} is {_shown(value)}, expected {_a(kind.__name__)}")
            if kind is int and not p.low <= value <= p.high:
                raise ValueError(f"{self.name}: {p.name} is {value}, expected {_range(p)}")
        for place in self.arrays:
            passed[place] = self._integers(place, arguments)
        numbers = self._with_derived(arguments) if self.derived else arguments
        for place, dtypes, count, p in self.tensors:
            x = arguments[place]
            if x is not None:
                if p.kind == "uint8" and isinstance(x, np.ndarray):
                    self._check_array(p.name, x, count, count.of(numbers))
                    passed[place] = x.ctypes.data
                    continue
                self._check_tensor(p.name, x, dtypes, count, count.of(numbers))
                passed[place] = x.data_ptr()
            elif not p.nullable:
                raise TypeError(f"{self.name}: {p.name} is None, expected a tensor")
        for place in self.lists:
            passed[place] = self._addresses(place, numbers)
        code = self.compiled(*passed)
        if code:
            raise self._failure(code, arguments)

    def _check_tensor(self, name: str, x, dtypes: tuple, count: Count, expected: int) -> None:
        if type(x) is not paddle.Tensor and not isinstance(x, paddle.Tensor):   # the first is quick, and mostly enough
            raise TypeError(f"{self.name}: {name} is {_shown(x)}, expected a tensor")
        dtype = x.dtype
        if dtype is not dtypes[0] and dtype not in dtypes:      # on Paddle 3 the first is enough, and quick
            raise TypeError(f"{self.name}: {name} is {_shown(x)}, expected {' or '.join(map(str, dtypes))}")
        if math.prod(x.shape) != expected:
            raise ValueError(f"{self.name}: {name} is {_shown(x)}, expected {expected} elements ({count.text})")
        if not x.is_contiguous():
            raise ValueError(f"{self.name}: {name} is a view with strides, {_shown(x)}; expected a dense tensor: "
                             "native.dense(x)")
        if not x.place.is_cpu_place():
            raise ValueError(f"{self.name}: {name} is on {x.place}, expected a tensor of the CPU")

    def _check_array(self, name: str, x, count: Count, expected: int) -> None:
        if x.dtype != np.uint8:
            raise TypeError(f"{self.name}: {name} is an array of {x.dtype}, expected uint8")
        if x.size != expected:
            raise ValueError(f"{self.name}: {name} is an array {list(x.shape)}, expected {expected} elements "
                             f"({count.text})")
        if not x.flags.c_contiguous:
            raise ValueError(f"{self.name}: {name} is an array with strides; expected a dense one: "
                             "numpy.ascontiguousarray(x)")

    def _integers(self, place: int, arguments):
        """An array for a parameter that is integers."""
        name, values, count = self.parameters[place].name, arguments[place], self.counts[place]
        if not isinstance(values, ctypes.Array):
            if not isinstance(values, (list, tuple)) or any(type(value) is not int for value in values):
                raise TypeError(f"{self.name}: {name} is {_shown(values)}, expected a list of integers")
            values = (ctypes.c_int64 * len(values))(*values)
        elif values._type_ is not ctypes.c_int64:
            raise TypeError(f"{self.name}: {name} is an array of {values._type_.__name__}, expected c_int64")
        if not count.or_more and len(values) != count.of(arguments):
            raise ValueError(f"{self.name}: {name} has {len(values)} integers, expected {count.of(arguments)} "
                             f"({count.text})")
        return values

    def _with_derived(self, arguments) -> tuple:
        """The call's arguments and what follows from them; arrays that may be longer are measured by it."""
        derived = self.derived.function(*(arguments[place] for place in self.inputs))
        if derived is None:
            raise self._failure(BAD_SIZES, arguments)
        numbers = (*arguments, *derived)
        for place in self.arrays:
            count = self.counts[place]
            if count.or_more and len(arguments[place]) < count.of(numbers):
                raise ValueError(f"{self.name}: {self.parameters[place].name} has {len(arguments[place])} integers, "
                                 f"expected {count.of(numbers)} or more ({count.text})")
        return numbers

    def _addresses(self, place: int, numbers):
        """An array of addresses for a parameter that is a list of tensors, or is such an array already."""
        name, tensors, count = self.parameters[place].name, numbers[place], self.counts[place]
        if isinstance(tensors, ctypes.Array):
            if tensors._type_ is not ctypes.c_void_p:
                raise TypeError(f"{self.name}: {name} is an array of {tensors._type_.__name__}, expected c_void_p")
        elif not isinstance(tensors, (list, tuple)):
            raise TypeError(f"{self.name}: {name} is {_shown(tensors)}, expected a list of tensors")
        if len(tensors) != self.lengths[place].of(numbers):
            raise ValueError(f"{self.name}: {name} has {len(tensors)} tensors, expected "
                             f"{self.lengths[place].of(numbers)} ({self.lengths[place].text})")
        if isinstance(tensors, ctypes.Array):
            return tensors
        for number, x in enumerate(tensors):
            self._check_tensor(f"{name}[{number}]", x, DTYPES["float32"], count, count.of(numbers))
        return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))

    def _failure(self, code: int, arguments) -> Exception:
        """The exception for a return code of common.h."""
        if code == NO_MEMORY:
            return MemoryError(f"{self.name}: no memory for its working rows")
        if code == NO_PRODUCTS:
            return RuntimeError(f"{self.name}: no products: this Paddle brings no MKL, or no oneDNN that is quick in "
                                "bfloat16; ask native.has_products() or native.has_bf16() first")
        sizes = ", ".join(f"{p.name} {list(value) if p.kind == 'int64' else value}"
                          for p, value in zip(self.parameters, arguments) if p.kind in ("int", "int64"))
        if code == REFUSED:
            return RuntimeError(f"{self.name}: oneDNN has no such primitive, or could not run it: {sizes}")
        return ValueError(f"{self.name}: sizes that do not fit together: {sizes}")


def _shown(value) -> str:
    if isinstance(value, paddle.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def _a(noun: str) -> str:
    return f"an {noun}" if noun == "int" else f"a {noun}"


def _range(parameter) -> str:
    return f"{parameter.low} or more" if parameter.high == math.inf else f"{parameter.low} to {parameter.high:.0f}"


def functions(library: ctypes.CDLL) -> dict:
    """Name -> ``Function`` for every function of the native library; declares the types of all of them."""
    for name in QUESTIONS:
        question = getattr(library, name)
        question.argtypes, question.restype = [], ctypes.c_int
    return {name: Function(getattr(library, name), name, parameters, DERIVED.get(name))
            for name, parameters in signatures().items()}
