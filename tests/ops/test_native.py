"""The kernels are compiled where they can be, kept, and done without where they cannot; the reason is told."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from passl_mixer.ops import native

PRINT = ("from passl_mixer.ops import native; import paddle; from passl_mixer.layers import basic as layers; "
         "x = paddle.ones([2, 3]); y = layers.Linear(3, 4)(x, 'gelu'); "
         "print(native.load() is not None, '|', native.status())")


def run(cache: Path, **environment) -> str:
    """The last line that ``PRINT`` says in a process of its own with this cache folder."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PRINT], capture_output=True, text=True, check=True,
                          env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment})
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.skipif(native.load() is None, reason=f"no compiled kernels: {native.status()}")
def test_compiled_once_and_kept(tmp_path):
    assert run(tmp_path).startswith("True")
    (library,) = (tmp_path / "passl_mixer").iterdir()       # and nothing half made beside it
    made = library.stat().st_mtime_ns
    assert run(tmp_path) == f"True | {library}"
    assert library.stat().st_mtime_ns == made


@pytest.mark.skipif(native.load() is None, reason=f"no compiled kernels: {native.status()}")
def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert run(tmp_path / "file").startswith("True")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not built elsewhere")
@pytest.mark.parametrize(("environment", "reason"), [
    ({"PASSL_MIXER_NATIVE": "0"}, "off (PASSL_MIXER_NATIVE=0)"),
    ({"CC": "false", "PATH": "/usr/bin:/bin"}, "not built")])
def test_without_it_everything_works_and_the_reason_is_told(tmp_path, environment, reason):
    if environment.get("CC") and "no libiomp5" in native.status():
        pytest.skip("this Paddle brings no OpenMP to link")
    assert run(tmp_path, **environment).startswith(f"False | {reason}")
