"""What ``register(repair=True)`` repairs; it stays so until the process ends, so this file comes last."""
import os
import re

import numpy
import paddle
import pytest
from helpers.arrays import differing, state_of
from passl_runs import QUIET, model_of, needs_passl, trainer

from passl_mixer.integrations.passl import register

pytestmark = [needs_passl, *QUIET]


def test_without_repair_a_run_cannot_be_resumed(passl, tmp_path, folder):
    run = trainer(tmp_path / "run", folder, model_of("SimCLR", {"name": "mlp_mixer_nano"}, 128), epochs=1)
    run.train()
    with pytest.raises(KeyError, match="lr_scheduler"):
        run.resume(os.fspath(tmp_path / "run" / "epoch_1.pdparams"))


# From here on PASSL is repaired, until the process ends: the two below must be the last.


def test_repair_moves_byols_target(passl, tmp_path, folder):
    register(repair=True)
    run = trainer(tmp_path / "run", folder, model_of("BYOL", {"name": "mlp_mixer_nano"}, 128), epochs=1, batch_size=8)
    start = state_of(run.model.towers[1])
    run.train()
    online, target = state_of(run.model.towers[0]), state_of(run.model.towers[1])
    weights = [name for name in start if not re.search("_mean|_variance", name)]    # the target's own statistics move
    assert len(differing({n: start[n] for n in weights}, target)) > 10
    for name in weights:
        numpy.testing.assert_allclose(target[name], 0.9 * start[name] + 0.1 * online[name], atol=1e-6)


def test_repair_resumes_and_seeds(passl, tmp_path, folder):
    register(repair=True)
    still = [{"name": "Resize", "size": [32, 32]}]      # nothing random: a resumed run must equal the other

    def run_of(name):
        model = model_of("SimCLR", {"name": "conv_mlp_nano"}, 192)
        return trainer(tmp_path / name, folder, model, transforms=still, seed=0)

    with paddle.utils.unique_name.guard():      # optimiser state is kept by generated names: as in a new process
        whole = run_of("whole")
        start = state_of(whole.model)
        whole.train()
    with paddle.utils.unique_name.guard():
        resumed = run_of("resumed")
        assert not differing(start, state_of(resumed.model))        # seed: 0 is a seed
        assert len(differing(start, state_of(whole.model))) > 10
        resumed.resume(os.fspath(tmp_path / "whole" / "epoch_1.pdparams"))
        assert (resumed.current_iter, resumed.current_epoch) == (2, 1)
        resumed.train()
    assert resumed.current_iter == 4
    end = state_of(resumed.model)
    for name, value in state_of(whole.model).items():
        numpy.testing.assert_allclose(end[name], value, atol=1e-6)
