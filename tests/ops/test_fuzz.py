"""Random calls of every operator in a process of its own: what is native is the reference's, and nothing ends it."""
import os
import subprocess
import sys
import time
from pathlib import Path

import fuzz_operators
import pytest
from helpers.marks import needs_native, slow_but

from passl_mixer import ops

SCRIPT = Path(fuzz_operators.__file__)
SECONDS = os.environ.get("PASSL_MIXER_FUZZ_SECONDS")


def test_every_operator_is_drawn():
    assert set(fuzz_operators.CALLS) == set(ops.TABLE)


@needs_native
@pytest.mark.parametrize("seconds", [float(SECONDS)] if SECONDS else slow_but([5.0], [5.0, 30.0]))
def test_random_calls(seconds):
    """The seed is that of the day's second; PASSL_MIXER_FUZZ_SEED repeats one, PASSL_MIXER_FUZZ_SECONDS is how long."""
    seed = os.environ.get("PASSL_MIXER_FUZZ_SEED", str(int(time.time())))
    done = subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT), seed, str(seconds)], capture_output=True,
                          text=True, timeout=seconds + 300)
    last = "\n".join(done.stdout.splitlines()[-3:])
    assert done.returncode == 0, f"seed {seed}, exit code {done.returncode}\n{last}\n{done.stderr[-3000:]}"
    assert "done: " in last, f"seed {seed}\n{last}"
