"""A script on one process and on two that train together by gloo; signals and what is waited for."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np

from passl_mixer import distributed


def until(happened) -> None:
    """Wait for something that happens within a minute."""
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit, "not within a minute"
        time.sleep(0.002)


@contextlib.contextmanager
def terminated_once(happened):
    """Sends SIGTERM to this process when something has happened."""
    def wait():
        until(happened)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def start(script: str, folder: Path, rank: int = 0, endpoints=("",)):
    """A process of a script, which gets the folder as its argument and says no warnings."""
    file = folder / f"worker_{zlib.crc32(script.encode())}.py"
    file.write_text(script)
    env = {**os.environ, "PYTHONPATH": str(Path(distributed.__file__).parent.parent), "OMP_NUM_THREADS": "1",
           "GLOG_minloglevel": "2"}
    if len(endpoints) > 1:
        env.update(PADDLE_TRAINER_ID=str(rank), PADDLE_TRAINERS_NUM=str(len(endpoints)),
                   PADDLE_TRAINER_ENDPOINTS=",".join(endpoints), PADDLE_CURRENT_ENDPOINT=endpoints[rank],
                   PADDLE_MASTER=endpoints[0], PADDLE_DISTRI_BACKEND="gloo")
    command = [sys.executable, "-W", "ignore", file, str(folder) + os.sep]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_pair(script: str, folder: Path) -> list:
    """Two processes of a script that train together."""
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    endpoints = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return [start(script, folder, rank, endpoints) for rank in range(2)]


def ends(processes, code: int = 0) -> list:
    """Wait for processes, which must end with ``code`` and never outlive this; returns what they said."""
    try:
        said = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


def arrays_of_two_and_one(script: str, folder: Path) -> tuple:
    """Run a script that saves ``RANKofSIZE.npz`` into the folder it is given: those of two processes, and of one."""
    ends([*start_pair(script, folder), start(script, folder)])
    return tuple(np.load(folder / f"{name}.npz") for name in ("0of2", "1of2", "0of1"))


def assert_two_are_one(script: str, folder: Path) -> set:
    """Run such a script; returns the names of its arrays.

    Two processes must save the same, and what one process saves, to rounding.
    """
    first, second, whole = arrays_of_two_and_one(script, folder)
    for key in whole.files:
        assert np.array_equal(first[key], second[key]), key
        np.testing.assert_allclose(first[key], whole[key], rtol=1e-4, atol=1e-6, err_msg=key)
    return set(whole.files)
