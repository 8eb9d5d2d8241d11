"""What two processes log is what one process logs that has the whole batch."""
import pytest
from run_folders import journal
from two_processes import ends, start, start_pair

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
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
    "simclr": [],
    "moco": ["model.method={name: moco, queue_size: 16}", "model.head.norm=null", "train.accumulate_steps=2"],
    "moco_v3": ["model.method={name: moco_v3, momentum: 0.5}"],
    "byol": ["model.method={name: byol, momentum: 0.5}"],
    "simsiam": ["model.method={name: simsiam}"],
    "supervised": ["model.method={name: supervised, label_smoothing: 0.1}", "model.head={name: linear, num_classes: 4}",
                   "data.train_views={name: inception, img_size: 16}"],
}


def test_the_logged_loss_is_the_global_batchs(tmp_path, tiny):
    tiny()          # writes the configuration
    file = tmp_path / "worker.py"
    file.write_text(SCRIPT.replace("OPTIONS", repr({name: [SGD, *STEPS, *more] for name, more in OPTIONS.items()})))
    ends([*start_pair(file, tmp_path), start(file, tmp_path, 0, [""])])
    for name in OPTIONS:
        two, one = (journal(tmp_path / f"{name}{size}") for size in (2, 1))
        assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3], name
        for ours, whole in zip(two, one):
            same = {"loss", "accuracy"} & set(whole)
            assert {key: ours[key] for key in same} == pytest.approx({key: whole[key] for key in same}, rel=1e-4), name
