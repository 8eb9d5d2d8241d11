"""What is not finite in one of two processes ends both, with one line each, instead of leaving the other to wait."""
import pytest
from helpers.two_processes import ends, start_pair

SCRIPT = """
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


@pytest.fixture
def said(tiny, tmp_path):
    """What two processes say of which one is broken before it acts."""
    tiny()      # writes tiny.yaml

    def of(broken, action):
        script = SCRIPT.replace("BROKEN", str(broken)).replace("ACTION", action)
        return [[line for line in output.splitlines() if line.startswith("ended:")]
                for output in ends(start_pair(script, tmp_path))]
    return of


def test_a_loss(said):
    (first,), (second,) = said(1, "train_step(run, next(batches), 1)")
    assert "not finite in another process at step 1" in first
    assert "is nan at step 1" in second


def test_a_parameter_that_is_to_be_saved(said, tmp_path):
    (first,), (second,) = said(0, "save(run, 1, 0.0, -1.0)")
    assert "is not finite after step 1; this state was not saved" in first
    assert "a parameter is not finite after step 1" in second
    assert not (tmp_path / "run" / "checkpoints").exists()
