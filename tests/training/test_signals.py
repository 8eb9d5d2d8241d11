"""A signal ends a run of two processes as it ends one: both stop after the same step, one checkpoint, exact resume."""
import signal
import time

import pytest
from helpers.run_folders import assert_same_arrays, assert_same_end, evaluated, journal
from helpers.two_processes import ends, start_pair, until

from passl_mixer import checkpoint
from passl_mixer.training.interruption import Interruption, steps_to_next_exchange

STEPS = 160
TRAIN = """
import sys
from passl_mixer.cli import main
options = ["output_dir=" + sys.argv[1] + "{name}", "schedule.epochs={epochs}", "train.checkpoint_every_epochs=0",
           "train.keep_checkpoints=1", *{more}]
sys.exit(main(["train", "-c", sys.argv[1] + "tiny.yaml", "--resume", *("-o" + option for option in options)]))
"""


def train(name, epochs=STEPS // 4, more=()):
    """A script that starts the run in folder ``name`` or continues it."""
    return TRAIN.format(name=name, epochs=epochs, more=more)


KNN = ["train.checkpoint_every_epochs=1", "evaluate.every_epochs=1", "evaluate.batch_size=2", "optim.lr=0.05",
       "data.eval_dataset={name: synthetic, num_images: 1200, img_size: 16}"]
QUESTIONS = """
import sys, time
import paddle
paddle.set_device("cpu")
from passl_mixer import distributed
from passl_mixer.training.interruption import Interruption
distributed.init()
exchanges = []
maximum = distributed.maximum
distributed.maximum = lambda numbers: exchanges.append(0) or maximum(numbers)
with Interruption() as interruption:
    for step in range(1001, 2000):
        time.sleep(0.001 * (1 + distributed.rank()))
        interruption.seen = distributed.rank() == 1 and step >= 1300
        if interruption.should_stop():
            break
print("stopped at", step, "after", len(exchanges))
"""


@pytest.fixture
def pair(tmp_path):
    """Starts two processes of a script; none outlives the test."""
    started = []

    def begin(script):
        started.extend(start_pair(script, tmp_path))
        return started[-2:]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def step_saved(folder, said):
    """The step of the one checkpoint, which is the last that was logged and the one that was said."""
    saved = checkpoint.checkpoints_of(folder)
    assert [p.name for p in (folder / "checkpoints").iterdir()] == [saved[-1].name]
    step = checkpoint.read_checkpoint(saved[-1])[2]["step"]
    assert journal(folder)[-1]["step"] == step < STEPS
    assert f"interrupted at step {step}; saved." in said
    return step


@pytest.mark.slow
def test_two_processes_end_at_one_step_and_resume_bit_for_bit(tmp_path, tiny, pair):
    tiny()      # writes the configuration
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    undisturbed = pair(train("whole"))

    running = pair(train("parts"))           # only the process that does not save is told to end
    until(lambda: any(line["step"] > 2 for line in journal(parts)))
    running[1].send_signal(signal.SIGTERM)
    first = step_saved(parts, ends(running, 130)[0])

    running = pair(train("parts"))           # as Paddle's launcher does it: one after the other, three times
    until(lambda: any(line["step"] > first + 1 for line in journal(parts)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        for process in running:
            process.send_signal(number)
        time.sleep(0.01)
    assert step_saved(parts, ends(running, 130)[0]) > first

    ends(pair(train("parts")), 0)
    ends(undisturbed, 0)
    assert_same_arrays(whole, parts)
    assert [(line["step"], line["loss"]) for line in journal(whole) if "loss" in line] \
        == [(line["step"], line["loss"]) for line in journal(parts) if "loss" in line]


@pytest.mark.slow
def test_two_processes_give_up_the_knn_together_and_do_it_when_they_continue(tmp_path, tiny, pair):
    tiny()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    undisturbed = pair(train("whole", 3, KNN))
    running = pair(train("parts", 3, KNN))
    until((parts / "checkpoints" / "step_0000008.safetensors").exists)
    running[1].send_signal(signal.SIGTERM)
    assert "interrupted at step 8; saved." in ends(running, 130)[0]
    assert list(evaluated(parts)) == [4]
    ends(pair(train("parts", 3, KNN)), 0)
    ends(undisturbed, 0)
    assert list(evaluated(parts)) == [4, 8, 12]
    assert_same_end(whole, parts)


@pytest.mark.slow
def test_processes_ask_each_other_once_in_a_while_and_agree(pair):
    said = [output.splitlines()[-1].split() for output in ends(pair(QUESTIONS), 0)]
    assert said[0] == said[1]
    step, exchanges = int(said[0][2]), int(said[0][4])
    assert 1300 <= step <= 1300 + 64
    assert exchanges <= (step - 1000) // 64 + 30        # a busy machine makes some steps long


@pytest.mark.parametrize(("steps", "seconds", "expected"), [
    (1, 0.1, 10), (10, 0.1, 64), (64, 32.0, 2), (1, 5.0, 1), (3, 0.0, 64)])
def test_a_question_about_every_second(steps, seconds, expected):
    assert steps_to_next_exchange(steps, seconds) == expected


@pytest.fixture
def interrupts():
    """Ctrl-C as Python takes it, also where the tests run in the background and their shell has turned it off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_the_second_signal_acts_as_usual_but_under_a_launcher(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert not interruption.should_stop()
        signal.raise_signal(signal.SIGINT)
        assert interruption.should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
    with Interruption() as interruption:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        assert interruption.should_stop()
    assert signal.getsignal(signal.SIGINT) is before
