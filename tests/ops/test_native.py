"""Native kernels are packaged, or compiled and kept, or done without; which of these and why is told."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import passl_mixer
from passl_mixer.ops import native
from passl_mixer.ops.native import build

PRINT = ("import paddle; from passl_mixer import build_backbone; from passl_mixer.ops import native; "
         "build_backbone({'name': 'MlpMixer', 'img_size': 8, 'patch_size': 4, 'embed_dim': 8, 'num_blocks': 1})("
         "paddle.ones([1, 3, 8, 8])); print(native.load() is not None, '|', native.status())")
PACKAGED = native.status().startswith("packaged")
needs_compiled = pytest.mark.skipif(PACKAGED or native.load() is None, reason=f"not compiled here: {native.status()}")
AVX_512, AVX2 = build.LEVELS
SYSTEM = {"PATH": "/usr/bin:/bin"}


def run(cache: Path, code: str = PRINT, *, root=None, **environment) -> str:
    """The last line that ``code`` prints in a process of its own with this cache folder, in the folder ``root``."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True,
                          cwd=root, env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment})
    return done.stdout.strip().splitlines()[-1]


# ---- compiled on demand ----

@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache folder of which a process has made use."""
    folder = tmp_path_factory.mktemp("cache")
    assert run(folder).startswith("True")
    return folder


@needs_compiled
def test_compiled_once_and_kept(cache):
    (library,) = (cache / "passl_mixer").iterdir()          # and nothing half made beside it
    made = library.stat().st_mtime_ns
    assert run(cache) == f"True | {library}"
    assert library.stat().st_mtime_ns == made


@needs_compiled
def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert run(tmp_path / "file").startswith("True")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not built elsewhere")
@pytest.mark.parametrize(("environment", "reason"), [
    ({"PASSL_MIXER_NATIVE": "0"}, "off (PASSL_MIXER_NATIVE=0)"),
    pytest.param({"CC": "false", **SYSTEM}, "not built", marks=needs_compiled),
    pytest.param({"CC": "none", "PATH": "/nowhere"}, "no C compiler", marks=needs_compiled)])
def test_without_it_everything_works_and_the_reason_is_told(tmp_path, environment, reason):
    assert run(tmp_path, **environment).startswith(f"False | {reason}")


# ---- packaged ----

NO_COMPILER = {"PATH": "/nowhere", "CC": ""}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with a copy of the package as a wheel brings it: the packaged kernels beside their sources."""
    if native.load() is None:
        pytest.skip(f"no native kernels: {native.status()}")
    root = tmp_path_factory.mktemp("installed")
    shutil.copytree(Path(passl_mixer.__file__).parent, root / "passl_mixer",
                    ignore=shutil.ignore_patterns("__pycache__"))
    if not PACKAGED:
        reason = build.build_packaged(native_folder(root))
        if reason.startswith("not Linux on x86-64"):
            pytest.skip(reason)
        assert reason == ""
    return root


def native_folder(root: Path) -> Path:
    return root / "passl_mixer" / "ops" / "native"


def with_levels(levels: str) -> str:
    """Code that knows only these levels, then does what ``PRINT`` does."""
    return f"from passl_mixer.ops.native import build; build.LEVELS = {levels}; {PRINT}"


OLDER = with_levels("[level._replace(needs=frozenset(['no such flag'])) for level in build.LEVELS]")


@pytest.mark.parametrize("place", range(2))
def test_packaged_kernels_need_no_compiler(tmp_path, installed, place):
    level = build.LEVELS[place]
    if not build.runs_here(level):
        pytest.skip(f"this processor has no {level.name}")
    said = run(tmp_path, with_levels(f"build.LEVELS[{place}:]"), root=installed, **NO_COMPILER)
    (library,) = native_folder(installed).glob(f"kernels-{level.name}-*.so")
    assert said == f"True | packaged, {level.name}: {library}"
    assert not (tmp_path / "passl_mixer").exists()


@pytest.mark.parametrize("place", range(2))
def test_packaged_kernels_compute_what_paddle_does(tmp_path, installed, place):
    if not build.runs_here(build.LEVELS[place]):
        pytest.skip(f"this processor has no {build.LEVELS[place].name}")
    x = np.random.default_rng(0).standard_normal([70, 515]).astype("float32")
    np.save(tmp_path / "x.npy", x)
    said = run(tmp_path, with_levels(f"build.LEVELS[{place}:]") + f"""
import numpy as np
x, folder = paddle.to_tensor(np.load(r"{tmp_path / 'x.npy'}")), r"{tmp_path}"
y, mean, rstd = paddle.empty([70, 515]), paddle.empty([70]), paddle.empty([70])
native.call("layer_norm", x, paddle.ones([515]), paddle.zeros([515]), y, mean, rstd, 70, 515, 1e-5)
native.call("gelu_erf_forward", y, x, 70 * 515)
np.save(folder + "/y.npy", x.numpy())
print(native.status())
""", root=installed, **NO_COMPILER)
    assert said.startswith(f"packaged, {build.LEVELS[place].name}: ")
    expected = F.gelu(F.layer_norm(paddle.to_tensor(x), [515])).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_an_older_processor_has_no_packaged_kernels(tmp_path, installed):
    assert run(tmp_path, OLDER, root=installed, **NO_COMPILER) == (
        "False | the packaged kernels need a processor with AVX2, and there is no C compiler")


@needs_compiled
def test_an_older_processor_compiles_where_it_can(cache, installed):
    (library,) = (cache / "passl_mixer").iterdir()
    assert run(cache, OLDER, root=installed) == f"True | {library}"


def test_the_switch_holds_for_packaged_kernels_too(tmp_path, installed):
    assert run(tmp_path, root=installed, PASSL_MIXER_NATIVE="0") == "False | off (PASSL_MIXER_NATIVE=0)"


def test_packaged_kernels_of_other_sources_are_not_taken(tmp_path, installed):
    source = native_folder(installed) / "gate.c"
    text = source.read_text()
    source.write_text(text + "/* changed */\n")
    assert run(tmp_path, root=installed, **NO_COMPILER) == "False | no C compiler"
    source.write_text(text)
    assert run(tmp_path, root=installed, **NO_COMPILER).startswith("True | packaged")


def test_a_packaged_library_that_does_not_load_is_told(tmp_path, installed):
    broken = tmp_path / "copy"
    shutil.copytree(installed, broken)
    for path in native_folder(broken).glob("kernels-*.so"):
        path.write_bytes(b"not a library")
    assert run(tmp_path, root=broken, **NO_COMPILER).startswith("False | not loaded: ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/cpuinfo")
def test_what_a_processor_needs():
    assert AVX2.needs < AVX_512.needs
    assert build.runs_here(AVX2._replace(needs=frozenset()))
    assert not build.runs_here(AVX2._replace(needs=frozenset(["no such flag"])))
