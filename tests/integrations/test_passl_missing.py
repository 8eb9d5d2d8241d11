"""What ``register()`` says where something is missing, in Python environments where it is; PASSL is not needed."""
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from passl_runs import needs_passl
from yaml import __file__ as yaml_file

from passl_mixer.integrations.passl import REQUIRED

ROOT = Path(__file__).resolve().parents[2]
NEEDED = sorted({module.split(".")[0] for module in REQUIRED} - {"yaml"})      # that one this package needs itself
CODE = """
import sys
from passl_mixer.errors import BadInput
from passl_mixer.integrations.passl import register
try:
    register()
except BadInput as error:
    print(error, end="")
print(*("paddle.fluid" in sys.modules, "passl" in sys.modules), sep=" ", file=sys.stderr, end="")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """``(interpreter, its folder of packages)`` of an environment that has this package's PyYAML and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages, = folder.glob("lib/python*/site-packages")
    (packages / "yaml").symlink_to(Path(yaml_file).parent)
    return folder / "bin" / "python", packages


def said(python, *folders) -> str:
    """What ``register()`` refuses with, packages being those of the environment and of some folders."""
    paths = [str(ROOT), *map(str, folders)]
    command = [str(python), "-W", "ignore", "-c", f"import sys; sys.path[1:1] = {paths!r}\n{CODE}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "False False", "PASSL was imported, or paddle.fluid was left behind"
    assert "\n" not in done.stdout
    return done.stdout


def install(folder, *modules, passl="0.0.4"):
    """Empty packages, and the metadata that pip leaves of PASSL."""
    for name in modules:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('nothing of this is there')\n")
    if "passl" in modules and passl:
        info = folder / f"passl-{passl}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: passl\nVersion: {passl}\n")
    return folder


def test_without_passl(python, tmp_path):
    expected = 'passl is not installed, expected 0.0.4; pip install "passl_mixer[passl]"'
    assert said(python[0]) == said(python[0], install(tmp_path, *NEEDED, "paddle")) == expected


@pytest.mark.parametrize(("version", "words"), [
    ("0.0.3", "passl 0.0.3 is installed, expected 0.0.4; pip install"),
    (None, "there is a passl of unknown version, expected 0.0.4 from PyPI; pip install")])
def test_with_another_passl(python, tmp_path, version, words):
    assert words in said(python[0], install(tmp_path, "passl", *NEEDED, "paddle", passl=version))


def test_without_anything_that_passl_imports(python, tmp_path):
    assert said(python[0], install(tmp_path, "passl")) == (
        "passl 0.0.4 also needs ftfy, opencv-python-headless, pillow, regex, tqdm, visualdl; "
        'pip install "passl_mixer[passl]"')


@pytest.mark.parametrize("absent", NEEDED)
def test_without_one_of_them(python, tmp_path, absent):
    folder = install(tmp_path, "passl", "paddle", *(name for name in NEEDED if name != absent))
    assert said(python[0], folder) == f'passl 0.0.4 also needs {REQUIRED[absent]}; pip install "passl_mixer[passl]"'


def test_without_paddle(python, tmp_path):
    assert "Paddle is not installed, expected 2.5 or newer; pip install" in said(
        python[0], install(tmp_path, "passl", *NEEDED))


@pytest.mark.parametrize("version", ["2.4.2", "1.8.5"])
def test_with_a_paddle_that_is_too_old(python, tmp_path, version):
    """A package that has no more of Paddle than its version: wheels this old are for Pythons we do not run on, or want
    CUDA 10. With the real 2.4.2 it was seen by hand (docs/passl.md)."""
    folder = install(tmp_path, "passl", *NEEDED, "paddle")
    (folder / "paddle" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    assert said(python[0], folder) == f"Paddle {version} is installed, expected 2.5 or newer; upgrade Paddle"


@needs_passl
@pytest.mark.parametrize("absent", ["tqdm", "visualdl"])
def test_an_installed_passl_without_one_package(python, tmp_path, absent):
    """Everything that is installed here, PASSL too, but for one package."""
    for entry in Path(distribution("passl").locate_file("")).iterdir():
        if entry.suffix != ".pth" and entry.name.split("-")[0] != absent:
            (tmp_path / entry.name).symlink_to(entry)
    assert f"passl 0.0.4 also needs {absent}; pip install" in said(python[0], tmp_path)
