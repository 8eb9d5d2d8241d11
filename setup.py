"""Packaging. The base install brings no Paddle, so that it never replaces the build a user has; see the extras.

A wheel built on Linux on x86-64 with a C compiler carries the native kernels (py3-none-linux_x86_64); elsewhere a wheel
is pure (py3-none-any), and the kernels are compiled where it is used. Editable installs build none.
"""
import re
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "passl_mixer/version.py").read_text(encoding="utf-8")).group(1)
CLIP = ["ftfy>=6.0", "regex>=2021.8"]      # captions: the tokenizer
TEST = [*CLIP, "pytest>=7", "visualdl>=2.5"]
NATIVE = "passl_mixer/ops/native"


class KernelDistribution(Distribution):
    """A distribution that knows whether its wheel carries compiled files."""

    has_kernels = False

    def has_ext_modules(self):
        return self.has_kernels


class KernelWheel(bdist_wheel):
    """Puts the kernels beside their sources; without them the wheel is pure."""

    def run(self):
        library = Path(self.get_finalized_command("build").build_lib)
        shutil.rmtree(library, ignore_errors=True)      # an earlier build may have left files there
        self.run_command("build")
        reason = runpy.run_path(str(HERE / NATIVE / "build.py"))["build_packaged"](library / NATIVE)
        print(f"native kernels: {'none, ' + reason if reason else 'packaged'}")
        self.distribution.has_kernels = not reason
        self.root_is_pure = bool(reason)
        super().run()

    def get_tag(self):
        """The kernels are C without Python: any Python 3, one platform."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(
    name="passl_mixer",
    version=VERSION,
    distclass=KernelDistribution,
    cmdclass={"bdist_wheel": KernelWheel},
    description="Self-supervised pretraining with MLP vision backbones in PaddlePaddle",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["passl_mixer", "passl_mixer.*"]),
    package_data={"passl_mixer.data": ["assets/*"], "passl_mixer.ops.native": ["*.c", "*.h"]},
    install_requires=["numpy>=1.23", "pyyaml>=5.4", "opencv-python-headless>=4.6", "pillow>=9.1", "safetensors>=0.4"],
    extras_require={
        "cpu": ["paddlepaddle>=3.0"],
        # Paddle 2.6 was built against NumPy 1 and, on Python 3.12, needs setuptools at run time
        "gpu": ["paddlepaddle-gpu>=2.6.2", "numpy<2", "setuptools"],
        "visualdl": ["visualdl>=2.5"],
        "clip": CLIP,
        "dali": ["nvidia-dali-cuda120>=2.4"],
        # passl's wheel declares ftfy and regex only
        "passl": ["passl==0.0.4", "ftfy", "regex", "tqdm", "visualdl>=2.5"],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.6", "matplotlib>=3.5"],
    },
    entry_points={"console_scripts": ["passl-mixer = passl_mixer.cli:main"]},
)
