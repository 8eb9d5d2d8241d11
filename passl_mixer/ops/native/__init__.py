"""Loads the C files beside this one, compiled once per machine with the C compiler that is there; optional.

Without a compiler, on other systems than Linux, or with ``PASSL_MIXER_NATIVE=0``, ``load()`` is None and every caller
takes Paddle's own operators: slower, the same numbers to rounding. The library is kept in
``$XDG_CACHE_HOME/passl_mixer`` (``~/.cache/passl_mixer``), named after the source, the compiler and the processor, so
that machines may share a home.
"""
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
SWITCH = "PASSL_MIXER_NATIVE"
# not -ffast-math: NaN must stay NaN, and the processor's handling of tiny numbers is not ours to change
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
         "-fassociative-math", "-freciprocal-math")


@functools.cache
def load() -> Optional[ctypes.CDLL]:
    """The compiled kernels, or None where there are none; compiles on the first call on a machine (a second)."""
    return _load()[0]


def call(name: str, *arguments) -> None:
    """Run a compiled function: tensors go by address (they must be dense), integers as int64, floats as float."""
    import paddle

    kinds = {int: ctypes.c_int64, float: ctypes.c_float, type(None): ctypes.c_void_p}
    failed = getattr(load(), name)(*(
        kinds[type(a)](a) if type(a) in kinds else ctypes.c_void_p(a.data_ptr()) if paddle.is_tensor(a) else a
        for a in arguments))
    if failed:
        raise MemoryError(f"{name}: no memory for its working rows")


def dense(x):
    """``x`` itself, or a copy in row-major order where it is a view with strides."""
    return x if x.is_contiguous() else x.contiguous()


def status() -> str:
    """Where the kernels are, or why there are none; for reports."""
    return _load()[1]


@functools.cache
def _load() -> tuple:
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"off ({SWITCH}=0)"
    if not sys.platform.startswith("linux"):
        return None, f"not built on {sys.platform}"
    openmp = _openmp()
    if openmp is None:
        return None, "this Paddle brings no libiomp5"
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None, "no C compiler"
    try:
        path = _compiled(compiler, openmp)
        # the ones Paddle uses: one pool of threads, one MKL; builds without MKL leave the convolution to Paddle
        ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
        products = openmp.with_name("libmklml_intel.so")
        if products.exists():
            ctypes.CDLL(str(products), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path)), str(path)
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error)
        return None, f"not built: {words.strip().splitlines()[0] if words.strip() else type(error).__name__}"


def _openmp() -> Optional[Path]:
    import paddle

    path = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    return path if path.exists() else None


def _compiled(compiler: str, openmp: Path) -> Path:
    """Path of the library for this source, compiler and processor, built if it is not there yet."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    identity = [*(source.read_text(encoding="utf-8") for source in SOURCES), *FLAGS, version,
                *re.findall(r"^(?:model name|flags|Features)\s*:.*$", cpu, re.MULTILINE)[:2]]
    name = f"kernels-{hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:16]}.so"
    folder = _cache_folder()
    path = folder / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / "kernels.so"
            parts = [str(source) for source in SOURCES if source.suffix == ".c"]
            objects = [f"{Path(part).stem}.o" for part in parts]
            # linked against Paddle's OpenMP by name: the process has it loaded already
            for command in ([compiler, *FLAGS, "-c", *parts],
                            [compiler, "-shared", *objects, str(openmp), "-lm", "-o", str(built)]):
                subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=work)
            os.replace(built, path)
    return path


def _cache_folder() -> Path:
    """A folder of this user's for compiled files, made if need be; a temporary one where the home is read-only."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "passl_mixer"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):             # read-only, or a user without a home
        return Path(tempfile.mkdtemp(prefix="passl_mixer_"))
