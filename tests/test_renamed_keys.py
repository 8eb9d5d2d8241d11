"""Keys under their old names: in files, bases, overrides and saved runs; announced once where a user wrote them."""
import numpy as np
import pytest

from passl_mixer import checkpoint
from passl_mixer.build import resolve
from passl_mixer.config import get_config, with_defaults
from passl_mixer.errors import BadInput
from passl_mixer.schema import RENAMED
from passl_mixer.training.trainer import train

PLAIN = """
output_dir: runs/x
model: {backbone: {name: a}, head: linear, method: {name: simclr, temperature: 0.1}}
data: {dataset: {name: d}, train_views: v, eval_views: v, batch_size: 8}
optim: {name: adamw, lr: 1e-3}
"""
MINIMAL = PLAIN + "schedule: {epochs: 2}\n"
OLD = "train: {accumulate: 2}\nschedule: {epochs: 2, final_lr: 1e-5}\n"
SAID = ["schedule.final_lr is called schedule.min_lr now; rename it",
        "train.accumulate is called train.accumulate_steps now; rename it"]


@pytest.mark.parametrize("where", ["file", "override", "base", "file and override", "base and file", "repeated"])
def test_an_old_key_works_and_is_announced_once(where, write, capsys):
    file, overrides = write(MINIMAL), []
    if where in ("file", "file and override"):
        file = write(PLAIN + OLD)
    if where in ("override", "file and override", "repeated"):
        overrides = ["train.accumulate=2", "schedule.final_lr=1e-5"]
    if where in ("base", "base and file"):
        write(PLAIN + OLD, "base.yaml")
        file = write("base: base.yaml" + ("\n" + OLD if where == "base and file" else ""), "child.yaml")
    if where == "repeated":
        overrides += ["train.accumulate_steps=2", "schedule.min_lr=0.00001"]
    config = get_config(file, overrides)
    assert (config.train.accumulate_steps, config.schedule.min_lr) == (2, 1e-5)
    assert config == get_config(write(MINIMAL), ["train.accumulate_steps=2", "schedule.min_lr=1e-5"])
    said = capsys.readouterr()
    assert (said.err.splitlines(), said.out) == (SAID, "")


def test_a_new_key_is_not_announced(write, capsys):
    get_config(write(MINIMAL), ["train.accumulate_steps=2"])
    assert capsys.readouterr().err == ""


def test_only_the_first_of_several_processes_announces(write, capsys, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    assert get_config(write(MINIMAL), ["train.accumulate=2"]).train.accumulate_steps == 2
    assert capsys.readouterr().err == ""


def test_a_later_source_wins_under_either_name(write):
    old = write(PLAIN + OLD)
    assert get_config(old, ["train.accumulate_steps=4"]).train.accumulate_steps == 4
    new = write(MINIMAL + "train: {accumulate_steps: 2}\n", "new.yaml")
    assert get_config(new, ["train.accumulate=4"]).train.accumulate_steps == 4


def test_an_old_name_in_python_says_the_new_one(write):
    config = get_config(write(MINIMAL))
    for section, old, new in (("train", "accumulate", "accumulate_steps"), ("schedule", "final_lr", "min_lr")):
        assert RENAMED[f"{section}.{old}"] == f"{section}.{new}"
        with pytest.raises(AttributeError, match=f"no key '{old}'; it is called '{new}' now"):
            getattr(config[section], old)
        with pytest.raises(AttributeError, match=f"no key '{old}'; it is called '{new}' now"):
            setattr(config[section], old, 2)
        setattr(config[section], new, 2)
        assert config[section][new] == 2


def test_a_saved_configuration_is_read_under_todays_names(write, capsys):
    saved = get_config(write(MINIMAL), ["train.accumulate_steps=2", "schedule.min_lr=1e-5"])
    old = {**saved, "train": {k: v for k, v in saved.train.items() if k not in ("accumulate_steps", "recompute")},
           "schedule": {k: v for k, v in saved.schedule.items() if k != "min_lr"}}
    old["train"]["accumulate"], old["schedule"]["final_lr"] = 2, 1e-5
    assert with_defaults(old) == saved
    assert capsys.readouterr().err == ""


def test_a_run_that_saved_old_keys_resumes_bitwise(tiny, tmp_path, capsys):
    """Its checkpoint and config.yaml have the names of then; the command that resumes it may have them too."""
    options = ("train.accumulate_steps=2", "schedule.min_lr=1e-4", "evaluate.at_end=[]")
    train(tiny(*options, f"output_dir={tmp_path / 'whole'}"))
    train(tiny(*options, "train.max_steps=3"))
    saved = checkpoint.find_checkpoint(tmp_path / "run")
    model, optim, meta = checkpoint.read_checkpoint(saved)
    for section, new, old in (("train", "accumulate_steps", "accumulate"), ("schedule", "min_lr", "final_lr")):
        meta["config"][section][old] = meta["config"][section].pop(new)
    checkpoint.save_checkpoint(saved, model, optim, meta)
    capsys.readouterr()
    with pytest.raises(BadInput, match=r"train\.accumulate_steps was 2, now 4"):
        checkpoint.open_run(resolve(tiny("train.accumulate_steps=4", *options[1:])), resume=True)
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("accumulate_steps: 2", "accumulate: 2")
                    .replace("min_lr: 0.0001", "final_lr: 0.0001"))
    assert {"  accumulate: 2", "  final_lr: 0.0001"} <= set(file.read_text().splitlines())
    train(get_config(file, ["train.max_steps=null"]), resume=True)
    said = capsys.readouterr()
    assert "resumed from" in said.out
    assert said.err.count("now; rename it") == 2
    whole, resumed = (checkpoint.read_checkpoint(checkpoint.find_checkpoint(tmp_path / name))
                      for name in ("whole", "run"))
    for one, other in zip(whole[:2], resumed[:2]):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert "final_lr" not in file.read_text()
