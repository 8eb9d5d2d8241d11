"""Precision of a run: which type products are computed in, and the autocast that says so.

Nothing here imports Paddle at module level: the set-up of the CPU has to come first.
"""
import contextlib
import warnings
from typing import Optional

from passl_mixer.errors import BadInput
from passl_mixer.runtime import cpu_info

_WARNING = "amp_guard can only be enabled on CUDAPlace"


def expect_autocast_on_cpus() -> None:
    """Silence Paddle's warning that autocast makes no effect on a CPU, where the processor is quick at bfloat16."""
    if {"avx512_bf16", "amx_bf16"} & set(cpu_info("flags").split()):
        warnings.filterwarnings("ignore", message=_WARNING, category=UserWarning)


def autocast_dtype(precision: str, device: str) -> Optional[str]:
    """The dtype of automatic mixed precision; None for plain float32.

    Args:
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16. Devices that are not quick at that type compute in
            float32: of CPUs, those without AVX512-BF16 or AMX, and all of them for fp16.
        device: as ``select_device`` returns it.
    Raises:
        BadInput: an unknown precision.
    """
    import paddle

    names = {"fp32": None, "bf16": "bfloat16", "auto": "bfloat16", "fp16": "float16"}
    if precision not in names:
        raise BadInput(f"train.precision is {precision!r}; expected auto, fp32, bf16 or fp16")
    if device == "cpu" and names[precision] == "bfloat16":
        from passl_mixer.ops import native

        return "bfloat16" if native.has_bf16() else None
    if names[precision] is None or device == "cpu":
        return None
    try:
        supported = (paddle.amp.is_float16_supported() if precision == "fp16" else
                     paddle.amp.is_bfloat16_supported())
    except TypeError:                           # Paddle 2.6 can tell for CPUs and GPUs, not for plug-ins
        supported = False
    return names[precision] if supported else None


def autocast(dtype: Optional[str], level: str = "O1"):
    """Context manager for forward passes and losses: products in ``dtype`` (None: no autocast), the rest in float32.

    On a CPU the products of this package know it; Paddle's operators do not, and warn of that. ``level`` is Paddle's.
    """
    if dtype is None:
        return contextlib.nullcontext()
    import paddle
    warnings.filterwarnings("ignore", message=_WARNING, category=UserWarning)
    return paddle.amp.auto_cast(enable=True, dtype=dtype, level=level)
