"""Markers that several tests put on."""
import pytest

from passl_mixer.ops import native

needs_native = pytest.mark.skipif(native.load() is None, reason=f"no native kernels: {native.status()}")
needs_bf16 = pytest.mark.skipif(not native.has_bf16(), reason=f"no bfloat16 on this CPU: {native.bf16_status()}")


def slow_but(fast, cases) -> list:
    """Cases of ``parametrize``, all marked slow but for some.

    Args:
        fast: the cases that a default run takes, or a function that tells them.
        cases: single values or tuples of values.
    """
    is_fast = fast if callable(fast) else lambda case: case in fast
    return [case if is_fast(case) else pytest.param(*(case if isinstance(case, tuple) else (case,)),
                                                    marks=pytest.mark.slow) for case in cases]
