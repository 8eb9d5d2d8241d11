"""The marker of tests that need the native kernels."""
import pytest

from passl_mixer.ops import native

needs_native = pytest.mark.skipif(native.load() is None, reason=f"no native kernels: {native.status()}")
