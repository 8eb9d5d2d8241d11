"""Correctness is not traded for speed: a seeded run has the same losses with every fast path on and off."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.marks import slow_but

STEPS = 20
# Not the recipe's rate, 2e-3: there a ReLU that flips by rounding, or a bias before a norm, whose gradient is rounding
# alone, moves later losses by 1e-4 where the operators agree to 1e-7. At a quarter of it networks with ReLUs still do
# (2e-5 in ConvMLP's twentieth loss, 1e-7 in its first ones), and others with some data (2e-4 in AS-MLP's, of MKL's two
# paths alone).
RATES = {"mlp_mixer_nano": 5e-4, "conv_mlp_nano": 1e-4, "cycle_mlp_nano": 5e-4, "as_mlp_nano": 1e-4,
         "resmlp_nano": 5e-4, "vip_nano": 1e-4, "s2_mlp_v2_nano": 1e-4, "swin_nano": 5e-4, "vit_nano": 5e-4,
         "gmlp_nano": 5e-4, "hire_mlp_nano": 1e-4, "wave_mlp_nano": 5e-5, "conv_mixer_nano": 1e-4}
SMALL = ["data.batch_size=16", f"train.max_steps={STEPS}", "train.log_every_steps=1",
         "evaluate.every_epochs=0", "evaluate.at_end=[]", "train.checkpoint_every_epochs=0", "data.num_workers=0",
         # the rates above were found with these
         "data.dataset.name=fashion_mnist_mini", "schedule.epochs=24", "schedule.warmup_epochs=1",
         "data.train_views.jitter_strength=1.0", "train.precision=fp32",
         "model.backbone={name: mlp_mixer_nano, patch_size: 7, embed_dim: 128, num_blocks: 4, mlp_ratio: [0.5, 4]}"]


# The CPU set-up of this process names MKL's fast path in the environment.
INHERITED = {key: value for key, value in os.environ.items() if key != "MKL_DEBUG_CPU_TYPE"}
# Paddle's own AdamW in the place of its multi-tensor kernel, which has no switch.
PLAIN_ADAMW = "from passl_mixer.training import optim; optim.kernel_lr_dtype = lambda device: None; "
MAIN = "import sys; from passl_mixer.cli import main; sys.exit(main(sys.argv[1:]))"


def losses(folder, backbone: str, rate: float, first: str = "", **environment) -> np.ndarray:
    """The losses of the first steps of the quickstart with another backbone, in a process of its own."""
    overrides = [*SMALL, f"model.backbone.name={backbone}", f"optim.lr={rate}", f"output_dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-c", first + MAIN, "train", "-c", "configs/quickstart.yaml",
         *(word for text in overrides for word in ("-o", text))],
        env={**INHERITED, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    found = np.array([line["loss"] for line in lines if "loss" in line])
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize(("backbone", "rate"), slow_but([("mlp_mixer_nano", 5e-4)], RATES.items()))
def test_same_losses(tmp_path, backbone, rate):
    fast = losses(tmp_path / "fast", backbone, rate, PASSL_MIXER_NATIVE="1", PASSL_MIXER_TUNE="1")
    plain = losses(tmp_path / "plain", backbone, rate, PLAIN_ADAMW, PASSL_MIXER_NATIVE="0", PASSL_MIXER_TUNE="0")
    np.testing.assert_allclose(fast, plain, rtol=1e-5)
    assert fast.std() > 0       # it trained
