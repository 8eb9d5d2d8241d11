"""On a device whose memory the host cannot touch and whose copies arrive late: the nearest to a GPU without one."""
import re
import subprocess
import sys
from pathlib import Path

import plugin_device
import pytest
from helpers.run_folders import journal

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return plugin_device.environment(tmp_path_factory.mktemp("plugin"))


def python(environment: dict, *arguments) -> str:
    """The output of a process whose Paddle has the device; it has to succeed."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_host_cannot_read_its_memory(environment):
    """Otherwise a kernel for the CPU that is given a tensor of the device would go unseen."""
    code = ("import ctypes, paddle; paddle.set_device('plugin_device'); x = paddle.ones([4]); "
            "print(float(x.sum()), flush=True); ctypes.string_at(x.data_ptr(), 4)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("4.0\n")
    assert done.returncode < 0


PYTEST = ["-m", "pytest", "-p", "no:cacheprovider"]
LATE = "tests/test_gpu.py::test_batches_that_nobody_waits_for_do_not_arrive"


@pytest.mark.slow
def test_what_a_gpu_has_to_show_holds_there(environment):
    said = python({**environment, "PLUGIN_DEVICE_DELAY_MS": "20"}, *PYTEST, "tests/test_gpu.py", "--deselect",
                  LATE)
    assert int(re.search(r"(\d+) passed", said).group(1)) >= 25


def test_its_copies_are_late(environment):
    """Late enough for a machine that other work keeps busy: the copies must lose the race against the computation."""
    assert "1 passed" in python({**environment, "PLUGIN_DEVICE_DELAY_MS": "100"}, *PYTEST, LATE)


@pytest.mark.slow
def test_a_run_there_is_the_run_on_the_cpu(environment, tiny, tmp_path):
    tiny()
    ends = {}
    for device in ("cpu", plugin_device.NAME):
        command = ["tools/train.py", "-c", tmp_path / "tiny.yaml", "-o", f"output_dir={tmp_path / device}",
                   "-o", f"train.device={device}"]
        said = python(environment, *command, "-o", "train.max_steps=5")
        assert f", {device}, float32" in said
        python(environment, *command, "--resume")
        said = python(environment, "tools/eval.py", "-c", tmp_path / device / "config.yaml", "--checkpoint",
                      tmp_path / device, "--knn", "--linear")
        ends[device] = journal(tmp_path / device), re.findall(r"\d+\.\d", said.partition("raw pixels")[2])
    (lines, scores), (there, scores_there) = ends.values()
    assert [line["loss"] for line in lines if "loss" in line] \
        == pytest.approx([line["loss"] for line in there if "loss" in line], rel=1e-4)
    assert scores == scores_there
    assert len(scores) >= 5
