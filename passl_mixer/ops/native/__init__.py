"""The native kernels: the C files beside this one as a library, and calls into it; optional.

A wheel for Linux on x86-64 brings them compiled, for AVX2 and for AVX-512. Elsewhere, as in a source checkout, they are
compiled once per machine with the C compiler that is there, and kept in ``$XDG_CACHE_HOME/passl_mixer``
(``~/.cache/passl_mixer``), named after the source, the compiler and the processor, so that machines may share a home.
Where neither works, and with ``PASSL_MIXER_NATIVE=0``, ``load()`` is None and every caller takes Paddle's own
operators: slower, the same numbers to rounding.

``build.py`` compiles, ``signatures.py`` declares the functions, ``checks.py`` checks every call.
"""
import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import paddle

from passl_mixer.ops.native import build, checks, onednn

SWITCH = "PASSL_MIXER_NATIVE"


@functools.cache
def load() -> Optional[ctypes.CDLL]:
    """The native kernels, or None where there are none; may compile on the first call on a machine (seconds)."""
    return _load()[0]


def call(name: str, *arguments) -> None:
    """Run a native kernel on dense tensors, integers and floats, in the order of ``signatures.py``.

    Raises:
        TypeError, ValueError: arguments that are not as declared there, or sizes that do not fit together; the
            function, the parameter, what was got and what was expected.
        MemoryError: no memory for its working rows.
    """
    _functions()[name](*arguments)


def has_products() -> bool:
    """Whether the convolutions are there, which need MKL: Paddle's builds for x86-64 bring it."""
    return load() is not None and bool(load().has_products())


@functools.cache
def has_bf16() -> bool:
    """Whether products and convolutions in bfloat16 are there, by the oneDNN that Paddle brings, and quick."""
    return load() is not None and bool(load().has_bf16_products())


def dense(x):
    """The tensor x [...] itself, or a dense row-major copy if it is a view with strides."""
    return x if x.is_contiguous() else x.contiguous()


def status() -> str:
    """Which native kernels are used and where they are, or why there are none; for reports."""
    return _load()[1]


def bf16_status() -> str:
    """Which oneDNN computes in bfloat16, or why none does; for reports."""
    return _load()[2]


@functools.cache
def _functions() -> dict:
    library = _load()[0]
    if library is None:
        raise RuntimeError(f"there are no native kernels ({status()}); callers ask load() first")
    return checks.functions(library)


@functools.cache
def _load() -> tuple:
    """``(library or None, status, status of bfloat16)``."""
    if os.environ.get(SWITCH, "1") == "0":
        return _none(f"off ({SWITCH}=0)")
    if not sys.platform.startswith("linux"):
        return _none(f"not built on {sys.platform}")
    openmp = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    if not openmp.exists():
        return _none("this Paddle brings no libiomp5")
    packaged = build.packaged()
    for level, path in packaged:
        if build.runs_here(level):
            return _open(path, openmp, f"packaged, {level.name}: {path}")
    compiler = build.find_compiler()
    if compiler is None:
        return _none("the packaged kernels need a processor with AVX2, and there is no C compiler" if packaged
                     else "no C compiler")
    try:
        path = build.compiled(compiler, openmp)
    except (OSError, subprocess.SubprocessError) as error:
        return _none(f"not built: {build.first_words(error)}")
    return _open(path, openmp, str(path))


def _none(why: str) -> tuple:
    return None, why, f"it needs the native kernels ({why})"


def _open(path: Path, openmp: Path, status: str) -> tuple:
    try:
        # the ones Paddle uses: one pool of threads, one MKL; builds without MKL leave the convolution to Paddle
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
        products = openmp.with_name("libmklml_intel.so")
        if products.exists():
            ctypes.CDLL(str(products), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
        return library, status, onednn.connect(library, openmp.parent)
    except OSError as error:
        return _none(f"not loaded: {build.first_words(error)}")
