"""CPU set-up, device choice, seeds and versions of a run.

Paddle's CPU defaults leave most of a machine idle. It sets one thread. Its MKL takes a slow code path on processors
that are not Intel's. glibc returns every large block to the kernel, so that each operation causes page faults again.
``tune_cpu`` corrects the three when ``passl_mixer`` is imported; ``PASSL_MIXER_TUNE=0`` turns it off.

Nothing here imports Paddle at module level: the set-up has to come first.
"""
import ctypes
import functools
import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Optional

from passl_mixer.errors import BadInput

TUNE_VARIABLE = "PASSL_MIXER_TUNE"
# What MKL's code path 7 (Skylake-X) is made of; AMD has it from Zen 4 on. Path 5 is AVX2.
AVX_512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3      # mallopt's parameter numbers, malloc.h of glibc


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Optional[float]:
    """CPU quota of this process in cores (cgroup v1 and v2, the smallest of the hierarchy); None without a quota."""
    quotas = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root if controllers == "" else root / "cpu"
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = base / path.lstrip("/")
        for folder in [group, *group.parents]:
            quotas.append(_folder_quota(folder))
            if folder in (base, root):
                break
    return min(filter(None, quotas), default=None)


def _folder_quota(folder: Path) -> Optional[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
    except (OSError, ValueError):
        return None
    return None if quota.strip() in ("max", "-1") else int(quota) / int(period)


def available_cores() -> int:
    """Physical cores of this process: its affinity mask without hyper-threads, limited by its cgroup quota."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text().strip() if siblings.exists() else str(cpu))
    quota = _cgroup_quota()
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def _openmp_of_paddle():
    """Paddle's own OpenMP library, loaded without importing Paddle; None if Paddle has none (OpenBLAS builds)."""
    spec = importlib.util.find_spec("paddle")
    folder = Path(spec.origin).parent / "libs" if spec and spec.origin else None
    library = folder / "libiomp5.so" if folder else None
    return ctypes.CDLL(str(library)) if library and library.exists() else None


@functools.cache
def tune_cpu() -> dict:
    """Set up threads, MKL's code path and the allocator, once per process.

    A thread count that the user set (``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``) is kept. Processes that
    ``paddle.distributed.launch`` started on one machine share its cores.

    Returns:
        The changes: ``{"tuned": bool, "threads": int or None, "mkl_path": str or None, "allocator": bool}``.
    """
    report = {"tuned": False, "threads": None, "mkl_path": None, "allocator": False}
    if os.environ.get(TUNE_VARIABLE, "1") == "0":
        return report
    report["tuned"] = True
    if sys.platform == "linux" and "AuthenticAMD" in cpu_info("vendor_id"):
        # MKL older than 2020.1, which Paddle bundles, reads this; without it, AMD gets code without AVX2
        path = "7" if AVX_512 <= set(cpu_info("flags").split()) else "5"
        report["mkl_path"] = os.environ.setdefault("MKL_DEBUG_CPU_TYPE", path)
    if not _threads_chosen():
        report["threads"] = _set_threads(max(1, available_cores() // _local_processes()))
    report["allocator"] = _keep_freed_memory()
    return report


def _threads_chosen() -> bool:
    """Whether the user set the number of threads; the OMP_NUM_THREADS=1 that Paddle sets itself does not count."""
    chosen = {k: os.environ[k] for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if k in os.environ}
    if chosen.get("OMP_NUM_THREADS") == "1" and "PADDLE_LOCAL_SIZE" in os.environ:
        del chosen["OMP_NUM_THREADS"]                   # the launcher imported Paddle, which set it for its children
    elif "paddle" in sys.modules and chosen.get("OMP_NUM_THREADS") == "1":
        environment = Path("/proc/self/environ")        # as the process was started
        if environment.exists() and b"OMP_NUM_THREADS=" not in environment.read_bytes():
            del chosen["OMP_NUM_THREADS"]
    return bool(chosen)


def _local_processes() -> int:
    """Processes of this training on this machine, from the launcher's environment variable."""
    count = os.environ.get("PADDLE_LOCAL_SIZE", "")
    return int(count) if count.isdigit() and int(count) > 0 else 1


def cpu_info(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty if there is none."""
    try:
        match = re.search(rf"^{key}\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return match.group(1) if match else ""


def _set_threads(count: int) -> Optional[int]:
    openmp = _openmp_of_paddle()
    if openmp is None:
        return None
    # The library reads the variable at its first call. It is put back because Paddle prints a warning when it sees
    # more than one, and because child processes should choose for themselves.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(count)          # where Paddle was imported first and the variable was read already
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before
    return count


def _keep_freed_memory() -> bool:
    """Let glibc keep large freed blocks for the next operation instead of returning them to the kernel; True if so."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))    # -1: never


def select_device(name: str) -> str:
    """Make a device current.

    Args:
        name: ``auto`` (a GPU if this Paddle has one, else a device of an installed plug-in, else the CPU), ``cpu``,
            ``gpu``, or a plug-in's name for its devices, such as ``npu``; ``:N`` after it selects one of several.
    Returns:
        The selected device.
    Raises:
        BadInput: an unknown name, or a device that this Paddle does not see.
    """
    import paddle

    counts = {"gpu": paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0}
    for device in paddle.device.get_available_custom_device() or ():       # "npu", or "npu:0", "npu:1"
        kind = device.partition(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    chosen = next((kind for kind, count in counts.items() if count), "cpu") if name == "auto" else name
    kind, colon, number = chosen.partition(":")
    if chosen != "cpu" and (kind not in counts or (colon and not number.isdigit())):
        raise BadInput(f"train.device is {name!r}; expected auto, cpu, {', '.join(f'{k} or {k}:N' for k in counts)}")
    if chosen != "cpu" and int(number or 0) >= counts[kind]:
        what, advice = ("GPU", "install paddlepaddle-gpu or ") if kind == "gpu" else (f"{kind} device", "")
        raise BadInput(f"train.device is {name!r}, but this Paddle sees {counts[kind]} {what}(s); "
                       f"{advice}use -o train.device=cpu")
    paddle.set_device(chosen)
    return chosen


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed Paddle's generators for one step, so that masks and permutations depend on (seed, step, rank) alone.

    A resumed run then draws the same numbers as an uninterrupted one, without generator state in checkpoints.

    Args:
        seed: of the run.
        step: steps done before this one.
        rank: of this process.
    """
    import numpy as np
    import paddle

    paddle.seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def versions() -> dict:
    """Versions and set-up that the results of a run depend on, for its run folder."""
    import cv2
    import numpy
    import paddle
    import PIL

    from passl_mixer.ops import native
    from passl_mixer.version import __version__

    modules = {"paddle": paddle, "numpy": numpy, "opencv": cv2, "pillow": PIL}
    return {"passl_mixer": __version__, **{name: module.__version__ for name, module in modules.items()},
            "git_commit": _git_commit(), "python": platform.python_version(), "platform": platform.platform(),
            "cpu_tuning": tune_cpu(), "native_kernels": native.status(), "cpu_bfloat16": native.bf16_status()}


def _git_commit() -> Optional[str]:
    """Commit of the checkout that this package runs from ("-dirty" with changes); None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
                              capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
