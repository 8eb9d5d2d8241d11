"""What two processes log is what one process logs that has the whole batch."""
import pytest
from helpers.methods import overrides
from helpers.run_folders import journal
from helpers.two_processes import ends, start, start_pair

SCRIPT = """
import sys
import paddle
paddle.set_device("cpu")
from passl_mixer import distributed, get_config
from passl_mixer.training.trainer import train

distributed.init()
for name, options in OPTIONS.items():
    folder = sys.argv[1] + name + str(distributed.world_size())
    train(get_config(sys.argv[1] + "tiny.yaml", ["output_dir=" + folder, *options]))
"""
SGD = "optim={name: sgd, lr: 0.1, momentum: 0.9}"
STEPS = ["train.max_steps=3", "schedule.warmup_epochs=0", "train.log_every_steps=2"]
OPTIONS = {
    **{name: overrides(name) for name in ("simclr", "simsiam")},
    "moco": [*overrides("moco", queue_size=16), "train.accumulate_steps=2"],
    **{name: overrides(name, momentum=0.5) for name in ("moco_v3", "byol")},
    "supervised": overrides("supervised", mixup_alpha=0.0),
}


def test_the_logged_loss_is_the_global_batchs(tmp_path, tiny):
    tiny()          # writes the configuration
    script = SCRIPT.replace("OPTIONS", repr({name: [SGD, *STEPS, *more] for name, more in OPTIONS.items()}))
    ends([*start_pair(script, tmp_path), start(script, tmp_path)])
    for name in OPTIONS:
        two, one = (journal(tmp_path / f"{name}{size}") for size in (2, 1))
        assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3], name
        for ours, whole in zip(two, one):
            same = {"loss", "accuracy"} & set(whole)
            assert {key: ours[key] for key in same} == pytest.approx({key: whole[key] for key in same}, rel=1e-4), name
