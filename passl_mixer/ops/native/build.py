"""The C files as a library: compiled for this machine on demand, or for a wheel.

Standard library only, because setup.py runs it.
"""
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, Optional

SOURCES = sorted(Path(__file__).resolve().parent.glob("*.[ch]"))
# not -ffast-math: NaN must stay NaN, and the processor's handling of tiny numbers is not ours to change
FLAGS = ("-O3", "-fopenmp", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
         "-freciprocal-math")


class Level(NamedTuple):
    """One build of a wheel: its name, its compiler flags, and the processor's flags in /proc/cpuinfo that it needs."""

    name: str
    flags: tuple
    needs: frozenset


_AVX2 = frozenset(("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"))
LEVELS = (      # the best first
    Level("AVX-512", ("-march=x86-64-v4", "-mtune=generic", "-mprefer-vector-width=512"),
          _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    Level("AVX2", ("-march=x86-64-v3", "-mtune=generic"), _AVX2),
)


def find_compiler() -> Optional[str]:
    """Path of $CC, cc, gcc or clang, the first that is there; None without one."""
    return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")


def compile_library(compiler: str, target: Path, *, flags, libraries=()) -> None:
    """Compile all C files to one library.

    Args:
        compiler: path of the C compiler.
        target: the library to write.
        flags: of the compiler, beside ``FLAGS``.
        libraries: linked to it. Without OpenMP, its symbols are resolved by the process that loads the library.
    Raises:
        OSError, subprocess.SubprocessError: the compiler's words are in ``stderr``.
    """
    with tempfile.TemporaryDirectory(dir=target.parent.resolve()) as work:      # absolute: the commands run in it
        built = Path(work) / "kernels.so"
        parts = [str(source) for source in SOURCES if source.suffix == ".c"]
        objects = [f"{Path(part).stem}.o" for part in parts]
        for command in ([compiler, *FLAGS, *flags, "-c", *parts],
                        [compiler, "-shared", *objects, *map(str, libraries), "-lm", "-o", str(built)]):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=work)
        os.replace(built, target)


def _digest(*texts: str) -> str:
    identity = [*(source.read_text(encoding="utf-8") for source in SOURCES), *FLAGS, *texts]
    return hashlib.sha256(chr(0).join(identity).encode()).hexdigest()[:16]


def _cpuinfo() -> list:
    """The processor's name and flags, as lines of /proc/cpuinfo; of the first core."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return re.findall(r"^(?:model name|flags|Features)\s*:.*$", text, re.MULTILINE)[:2]


# ---- on demand ----

def compiled(compiler: str, openmp: Path) -> Path:
    """Path of the library for these sources, this compiler and this processor, built if it is not there yet.

    Linked against Paddle's OpenMP by name: the process has it loaded already.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    path = _cache_folder() / f"kernels-{_digest(version, *_cpuinfo())}.so"
    if not path.exists():
        compile_library(compiler, path, flags=("-march=native",), libraries=(openmp,))
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


# ---- in wheels ----

def _file_name(level: Level) -> str:
    """Of a wheel's library; it has the sources' digest, so that a library of other sources is not taken."""
    return f"kernels-{level.name}-{_digest(*level.flags)}.so"


def build_packaged(folder: Path) -> str:
    """Compile every level into a folder, for a wheel.

    Returns:
        Why there is none: no compiler, another system, or the compiler's first words; "" where all are built.
    """
    for old in folder.glob("kernels-*.so"):
        old.unlink()
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return f"not Linux on x86-64 ({sys.platform}, {platform.machine()})"
    compiler = find_compiler()
    if compiler is None:
        return "no C compiler"
    try:
        for level in LEVELS:
            compile_library(compiler, folder / _file_name(level), flags=level.flags)
    except (OSError, subprocess.SubprocessError) as error:
        for built in folder.glob("kernels-*.so"):
            built.unlink()
        return f"{compiler} failed: {first_words(error)}"
    return ""


def packaged() -> list:
    """``(level, path)`` of every library that lies beside the sources, as in an installed wheel; the best first."""
    paths = [(level, Path(__file__).parent / _file_name(level)) for level in LEVELS]
    return [(level, path) for level, path in paths if path.exists()]


def runs_here(level: Level) -> bool:
    """Whether this machine's processor has what a level needs."""
    return level.needs <= set(" ".join(_cpuinfo()).split())


def first_words(error: Exception) -> str:
    """The first line that a failed command or file said."""
    words = (getattr(error, "stderr", None) or str(error)).strip()
    return words.splitlines()[0] if words else type(error).__name__
