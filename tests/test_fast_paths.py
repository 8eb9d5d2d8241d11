"""Correctness is not traded for speed: a seeded run has the same losses with every fast path on and off."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEPS = 20
# A quarter of the recipe's rate: at the full one a ReLU that flips by rounding, or a bias before a norm, whose gradient
# is rounding alone, moves later losses by 1e-4 where the operators agree to 1e-7.
SMALL = ["optim.lr=5e-4", "data.batch_size=16", f"train.max_steps={STEPS}", "train.log_every_steps=1",
         "evaluate.every_epochs=0", "evaluate.at_end=[]", "train.checkpoint_every_epochs=0", "data.num_workers=0"]


# Paddle's own AdamW in the place of its multi-tensor kernel, which has no switch.
PLAIN_ADAMW = "from passl_mixer import optim; optim.kernel_lr_dtype = lambda device: None; "
MAIN = "import sys; from passl_mixer.cli import main; sys.exit(main(sys.argv[1:]))"


def losses(folder, backbone: str, first: str = "", **environment) -> np.ndarray:
    """The losses of the first steps of the quickstart with another backbone, in a process of its own."""
    overrides = [*SMALL, f"model.backbone.name={backbone}", f"output_dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-c", first + MAIN, "train", "-c", "configs/quickstart.yaml",
         *(word for text in overrides for word in ("-o", text))],
        env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    found = np.array([line["loss"] for line in lines if "loss" in line])
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize("backbone", ["mlp_mixer_nano", "conv_mlp_nano", "cycle_mlp_nano", "as_mlp_nano"])
def test_same_losses(tmp_path, backbone):
    fast = losses(tmp_path / "fast", backbone, PASSL_MIXER_NATIVE="1", PASSL_MIXER_TUNE="1")
    plain = losses(tmp_path / "plain", backbone, PLAIN_ADAMW, PASSL_MIXER_NATIVE="0", PASSL_MIXER_TUNE="0")
    np.testing.assert_allclose(fast, plain, rtol=1e-5)
    assert fast.std() > 0       # it trained
