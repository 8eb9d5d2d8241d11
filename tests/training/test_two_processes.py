"""Two processes log what one logs that has the whole batch; what is not finite in one of them ends both."""
import pytest
from helpers.marks import slow_but
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


# What is not finite in one of two processes ends both, with one line each, instead of leaving the other to wait.
BROKEN_RUN = """
import sys
import paddle
paddle.set_device("cpu")
from passl_mixer import distributed, get_config
from passl_mixer.training.run import build_run
from passl_mixer.errors import NumericalFailure
from passl_mixer.training.saving import save
from passl_mixer.training.step import train_step

distributed.init()
options = ["model.method={name: simsiam}", "train.sync_batch_norm=false", "train.accumulate_steps=2",
           "output_dir=" + sys.argv[1] + "run"]        # nothing of one process is in the other's loss
run = build_run(get_config(sys.argv[1] + "tiny.yaml", options))
batches = iter(run.loader.epoch(0))
train_step(run, next(batches), 0)
if distributed.rank() == BROKEN:
    parameter = run.method.trainable_parameters()[0][1]
    parameter.set_value(parameter * float("nan"))
try:
    ACTION
except NumericalFailure as error:
    print("ended:", error)
"""


@pytest.mark.parametrize(("broken", "action", "words"), slow_but(lambda case: case[0] == 1, [
    (1, "train_step(run, next(batches), 1)", ["not finite in another process at step 1", "is nan at step 1"]),
    (0, "save(run, 1, 0.0, -1.0)", ["is not finite after step 1; this state was not saved",
                                    "a parameter is not finite after step 1"])]))
def test_what_is_not_finite_in_one_process_ends_both(tiny, tmp_path, broken, action, words):
    tiny()      # writes the configuration
    script = BROKEN_RUN.replace("BROKEN", str(broken)).replace("ACTION", action)
    for output, expected in zip(ends(start_pair(script, tmp_path)), words):
        (said,) = [line for line in output.splitlines() if line.startswith("ended:")]
        assert expected in said
    assert not (tmp_path / "run" / "checkpoints").exists()
