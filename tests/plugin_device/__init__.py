"""A device for Paddle whose memory is not the host's, compiled on demand; see device.cc."""
import os
import shutil
import subprocess
from pathlib import Path

import paddle
import pytest

NAME = "plugin_device"
SOURCE = Path(__file__).with_name("device.cc")


def environment(folder: Path) -> dict:
    """The environment of a process whose Paddle has the device, compiled into ``folder`` for the Paddle that is here.

    Skips the test where there is no compiler.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    paddle_folder = Path(paddle.__file__).parent
    libraries = [paddle_folder / "libs" / "libphi_core.so", paddle_folder / "base" / "libpaddle.so"]
    library = next(path for path in libraries if path.exists())         # who has the kernels' C interface: 3.3, 2.6
    subprocess.run([compiler, "-std=c++17", "-O1", "-Wall", "-shared", "-fPIC", "-pthread",
                    "-DPADDLE_WITH_CUSTOM_DEVICE", "-DPADDLE_WITH_CUSTOM_KERNEL",
                    f"-I{paddle_folder / 'include'}", str(SOURCE), f"-L{library.parent}", f"-l:{library.name}",
                    "-o", str(folder / "libplugin_device.so")], check=True)
    return {**os.environ, "CUSTOM_DEVICE_ROOT": str(folder), "GLOG_minloglevel": "1"}
