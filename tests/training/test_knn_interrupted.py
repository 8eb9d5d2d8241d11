"""A run that is ended during the kNN after an epoch loses nothing and ends as one that was not."""
import json
import signal
import time

import pytest
from helpers.marks import slow_but
from helpers.run_folders import assert_same_end, evaluated, journal
from helpers.two_processes import start, terminated_once, until

from passl_mixer import checkpoint
from passl_mixer.log import RunLog
from passl_mixer.training.interruption import Interruption
from passl_mixer.training.run import build_run
from passl_mixer.training.trainer import _loop, train

# Four epochs of four steps
RUN = ["optim.lr=0.05", "schedule.epochs=4", "evaluate.every_epochs=1", "evaluate.at_end=[knn]",
       "train.keep_checkpoints=1"]
# 500 small batches: a third of a second
LONG = ["evaluate.batch_size=2", "data.eval_dataset={name: synthetic, num_images: 800, num_test_images: 200, "
                                 "img_size: 16, num_classes: 10}"]
SCRIPT = f"""
import sys
from passl_mixer.cli import main
options = ["output_dir=" + sys.argv[1] + "NAME", *{RUN + LONG}]
sys.exit(main(["train", "-c", sys.argv[1] + "tiny.yaml", "--resume", *("-o" + option for option in options)]))
"""


@pytest.fixture
def two_runs(tiny, tmp_path):
    """A run that is not disturbed, its folder, and the options and the folder of one that will be."""
    def begin(*options):
        train(tiny(*RUN, *options, f"output_dir={tmp_path / 'whole'}"))
        assert list(evaluated(tmp_path / "whole")) == [4, 8, 12, 16]
        return tmp_path / "whole", (*RUN, *options, f"output_dir={tmp_path / 'parts'}"), tmp_path / "parts"
    return begin


@pytest.mark.parametrize("steps", slow_but([14], [4, 12, 14, 16]))
def test_ended_after_any_step(tiny, two_runs, steps):
    whole, options, parts = two_runs()
    train(tiny(*options, f"train.max_steps={steps}"))
    train(tiny(*options), resume=True)
    assert_same_end(whole, parts)


@pytest.mark.parametrize("steps", slow_but([14], [12, 14]))
def test_what_was_best_is_known_though_the_checkpoint_is_older(tiny, two_runs, steps):
    """The checkpoint of step 12 was saved before the kNN that the log has of it, here one that is not beaten."""
    _, options, parts = two_runs()
    train(tiny(*options, f"train.max_steps={steps}"))
    *earlier, last = [line for line in journal(parts) if line["step"] <= 12]
    (parts / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*earlier, {**last, "knn": 0.99})))
    best = parts / "checkpoints" / "best.safetensors"
    before = best.read_bytes()
    train(tiny(*options), resume=True)
    assert best.read_bytes() == before
    assert checkpoint.read_checkpoint(parts / "checkpoints" / "step_0000016.safetensors")[2]["best_knn"] == 0.99


@pytest.mark.parametrize("steps", slow_but([12], [8, 12, 16]))
def test_ended_between_the_best_checkpoint_and_its_line(tiny, two_runs, steps):
    whole, options, parts = two_runs()
    train(tiny(*options, f"train.max_steps={steps}"))
    lines = (parts / "log.jsonl").read_text().splitlines(keepends=True)
    assert '"knn"' in lines[-1]
    (parts / "log.jsonl").write_text("".join(lines[:-1]))
    (parts / "summary.json").unlink()
    train(tiny(*options), resume=True)
    assert_same_end(whole, parts)


def test_a_checkpoint_with_a_later_best_beside_it(tiny, two_runs):
    """Of a run whose last checkpoint is two epochs back: the best of a time that has not come yet does not count."""
    often = ["train.checkpoint_every_epochs=0", "train.checkpoint_every_steps=7", "train.keep_checkpoints=9"]
    whole, options, parts = two_runs(*often)
    train(tiny(*options))
    (parts / "checkpoints" / "step_0000016.safetensors").unlink()
    (parts / "checkpoints" / "step_0000014.safetensors").unlink()
    train(tiny(*options), resume=True)          # from step 7; the best is of step 12
    assert_same_end(whole, parts)


@pytest.mark.parametrize(("step", "options"), slow_but(lambda case: case[0] == 12, [
    (12, []), (8, ["train.checkpoint_every_epochs=0"]), (16, [])]))
def test_a_signal_does_not_wait_for_the_knn(tiny, two_runs, capsys, step, options):
    whole, options, parts = two_runs(*LONG, "evaluate.at_end=[]", *options)

    with terminated_once(lambda: any(line["step"] == step for line in journal(parts))):
        summary = train(tiny(*options))
    assert summary["interrupted"]
    assert summary["steps"] == step
    assert step not in evaluated(parts)
    assert f"interrupted at step {step}; saved." in capsys.readouterr().out
    assert checkpoint.read_checkpoint(checkpoint.find_checkpoint(parts))[2]["step"] == step
    assert not (parts / "summary.json").exists()
    train(tiny(*options), resume=True)
    assert_same_end(whole, parts)


def test_after_a_signal_no_knn_is_begun(tiny, tmp_path):
    """The signal came during the only step of an epoch."""
    run = build_run(tiny("data.batch_size=32", "evaluate.every_epochs=1"))
    measured = []
    run.method.encoder.register_forward_post_hook(
        lambda layer, given, features: None if layer.training else measured.append(given))
    interruption = Interruption()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for seen, expected in ((True, (1, True)), (False, (2, False))):
        interruption.seen = seen
        with RunLog(tmp_path / "run", start_step=0, total_steps=2) as log:
            assert _loop(run, log, interruption, 0, time.perf_counter(), -1.0) == expected
        assert bool(measured) is not seen
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "step_0000002.safetensors"


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tiny, tmp_path):
    """Killed in the kNN of the third epoch, while that is done again, in the last kNN, and in the final evaluation."""
    tiny()      # writes the configuration
    running = []

    def begin(name):
        running.append(start(SCRIPT.replace("NAME", name), tmp_path))
        return running[-1]

    def says(process, words):
        assert any(line.startswith(words) for line in process.stdout)

    def kill(process):
        process.kill()
        assert process.wait() == -signal.SIGKILL

    def saved():
        return [p.name for p in checkpoint.checkpoints_of(parts)]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    try:
        undisturbed, process = begin("whole"), begin("parts")
        until(lambda: saved() == ["step_0000012.safetensors"])      # and the one before is deleted
        kill(process)
        assert list(evaluated(parts)) == [4, 8]
        process = begin("parts")
        says(process, "resumed from")
        kill(process)
        assert list(evaluated(parts)) == [4, 8]
        process = begin("parts")
        until(lambda: saved() == ["step_0000016.safetensors"])
        kill(process)
        assert list(evaluated(parts)) == [4, 8, 12]
        process = begin("parts")
        says(process, "evaluating knn")
        kill(process)
        assert list(evaluated(parts)) == [4, 8, 12, 16]
        assert not (parts / "summary.json").exists()
        process = begin("parts")
        for ending in (undisturbed, process):
            said = ending.communicate(timeout=60)[0]
            assert ending.returncode == 0, said
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert_same_end(whole, parts)
