"""CPU set-up: cores counted rightly, the user's choice respected, one variable turns it off."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from passl_mixer import runtime
from passl_mixer.autocast import autocast_dtype
from passl_mixer.errors import BadInput
from passl_mixer.ops import native

REPORT = ("import json, os, passl_mixer, paddle; from passl_mixer import runtime; "
          "print(json.dumps([runtime.tune_cpu(), os.environ.get('MKL_DEBUG_CPU_TYPE')]))")


def in_new_process(code, **environment):
    clean = {k: v for k, v in os.environ.items()
             if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PASSL_MIXER_TUNE")}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={**clean, **environment}, check=True,
                          capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1], done.stderr


def test_import_tunes_and_the_variable_turns_it_off():
    out, err = in_new_process(REPORT)
    report, _ = json.loads(out)
    assert report["tuned"]
    assert report["threads"] in (None, runtime.available_cores())
    assert "OMP_NUM_THREADS" not in err, "Paddle's warning about threads should not reach the user"
    out, _ = in_new_process(REPORT, PASSL_MIXER_TUNE="0")
    assert json.loads(out) == [{"tuned": False, "threads": None, "mkl_path": None, "allocator": False}, None]


@pytest.mark.slow
def test_mkl_gets_the_widest_code_path_the_processor_has():
    """On AMD only; elsewhere MKL chooses rightly itself."""
    out, _ = in_new_process(REPORT)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    path = None if "AuthenticAMD" not in flags else "7" if "avx512dq" in flags and "avx512vl" in flags else "5"
    assert json.loads(out)[1] == path
    out, _ = in_new_process(REPORT, MKL_DEBUG_CPU_TYPE="4")
    assert json.loads(out)[1] == "4", "what the user chose stays"


@pytest.mark.slow
def test_tuning_does_not_depend_on_the_order_of_imports():
    """Sorted imports put paddle before passl_mixer; Paddle then has set OMP_NUM_THREADS to 1 by itself."""
    out, _ = in_new_process("import paddle\n" + REPORT)
    assert json.loads(out)[0]["threads"] in (None, runtime.available_cores())
    first, _ = in_new_process("import paddle, passl_mixer, ctypes; lib = passl_mixer.runtime._openmp_of_paddle(); "
                              "print(lib.omp_get_max_threads() if lib else passl_mixer.runtime.available_cores())")
    assert int(first) == runtime.available_cores()
    out, _ = in_new_process("import paddle\n" + REPORT, OMP_NUM_THREADS="1")
    assert json.loads(out)[0]["threads"] is None


def test_threads_the_user_chose_stay():
    out, _ = in_new_process(REPORT, OMP_NUM_THREADS="1")
    assert json.loads(out)[0]["threads"] is None


@pytest.mark.slow
def test_processes_of_one_launch_share_the_cores():
    """The launcher imports Paddle, whose OMP_NUM_THREADS=1 its children inherit."""
    out, _ = in_new_process(REPORT, OMP_NUM_THREADS="1", PADDLE_LOCAL_SIZE="2")
    assert json.loads(out)[0]["threads"] in (None, max(1, runtime.available_cores() // 2))
    out, _ = in_new_process(REPORT, OMP_NUM_THREADS="3", PADDLE_LOCAL_SIZE="2")
    assert json.loads(out)[0]["threads"] is None


def test_importing_the_package_does_not_import_paddle():
    out, _ = in_new_process("import sys, passl_mixer; print('paddle' in sys.modules)")
    assert out == "False"


@pytest.mark.parametrize(("files", "membership", "quota"), [
    ({"a/cpu.max": "150000 100000", "cpu.max": "max 100000"}, "0::/a", 1.5),
    ({"a/cpu.max": "max 100000", "a/b/cpu.max": "400000 100000", "cpu.max": "200000 100000"}, "0::/a/b", 2.0),
    ({"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/x", 0.5),
    ({"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, "3:cpu:/x\n2:memory:/y", None),
    ({}, "0::/a", None)])
def test_cgroup_quota(tmp_path, files, membership, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "membership").write_text(membership + "\n")
    assert runtime._cgroup_quota(tmp_path, tmp_path / "membership") == quota


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity masks are Linux's")
def test_affinity_bounds_the_cores():
    first = min(os.sched_getaffinity(0))
    out, _ = in_new_process(f"import os; os.sched_setaffinity(0, [{first}]); from passl_mixer import runtime; "
                            "print(runtime.available_cores())")
    assert out == "1"


def test_device_and_precision_names():
    assert runtime.select_device("cpu") == "cpu"
    assert autocast_dtype("fp32", "cpu") is autocast_dtype("fp16", "cpu") is None
    expected = "bfloat16" if native.has_bf16() else None
    assert autocast_dtype("bf16", "cpu") == autocast_dtype("auto", "cpu") == expected
    for unknown in ("cuda", "npu", "gpu:first", "cpu:0"):
        with pytest.raises(BadInput, match="expected auto, cpu, gpu or gpu:N"):
            runtime.select_device(unknown)
    with pytest.raises(BadInput, match=r"sees \d+ GPU\(s\).* use -o train.device=cpu"):
        runtime.select_device("gpu:99")
    with pytest.raises(BadInput, match="expected auto, fp32, bf16 or fp16"):
        autocast_dtype("half", "cpu")


def test_seed_step_depends_on_all_three():
    import paddle
    def draw(*key):
        runtime.seed_step(*key)
        return paddle.rand([4]).numpy().tolist()
    assert draw(0, 3, 0) == draw(0, 3, 0)
    assert len({tuple(draw(*k)) for k in [(0, 3, 0), (1, 3, 0), (0, 4, 0), (0, 3, 1)]}) == 4
