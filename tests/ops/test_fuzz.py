"""Random calls of every operator in a process of its own: what is native is the reference's, and nothing ends it."""
import os
import subprocess
import sys
import time
from pathlib import Path

import fuzz_operators
from helpers.marks import needs_native

from passl_mixer import ops

SCRIPT = Path(fuzz_operators.__file__)
SECONDS = float(os.environ.get("PASSL_MIXER_FUZZ_SECONDS", "30"))


def test_every_operator_is_drawn():
    assert set(fuzz_operators.CALLS) == set(ops.TABLE)


@needs_native
def test_random_calls():
    """The seed is that of the day's second; PASSL_MIXER_FUZZ_SEED repeats one, PASSL_MIXER_FUZZ_SECONDS is how long."""
    seed = os.environ.get("PASSL_MIXER_FUZZ_SEED", str(int(time.time())))
    done = subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT), seed, str(SECONDS)], capture_output=True,
                          text=True, timeout=SECONDS + 300)
    last = "\n".join(done.stdout.splitlines()[-3:])
    assert done.returncode == 0, f"seed {seed}, exit code {done.returncode}\n{last}\n{done.stderr[-3000:]}"
    assert "done: " in last, f"seed {seed}\n{last}"
