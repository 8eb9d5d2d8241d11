"""The loop: exact resume, what a run folder holds, the step's order, failures that name themselves."""
import json

import numpy as np
import paddle
import pytest
from helpers.methods import CLASSIFIER, DROP_PATH, METHODS, OPTIMISERS, override, overrides
from helpers.run_folders import assert_same_arrays, journal, last_checkpoint
from helpers.two_processes import terminated_once

from passl_mixer import checkpoint
from passl_mixer.build import resolve
from passl_mixer.data import build_dataset
from passl_mixer.errors import BadInput, NumericalFailure
from passl_mixer.evaluation import evaluate
from passl_mixer.images import to_images
from passl_mixer.training.run import build_run
from passl_mixer.training.step import lr_at, train_step
from passl_mixer.training.trainer import train

SUPERVISED = [*overrides("supervised"), DROP_PATH]
RUNS = {**{name: overrides(name) for name in METHODS}, "supervised": SUPERVISED, "lars": OPTIMISERS["lars"],
        "sgd_clipped": OPTIMISERS["sgd_clipped"]}


def losses(folder):
    return [(line["step"], line["loss"]) for line in journal(folder) if "loss" in line]


@pytest.mark.parametrize("name", RUNS)
def test_resume_continues_bit_for_bit(tiny, tmp_path, name):
    """Stopped in the middle of an epoch and continued: same batches, same losses, same weights as never stopped."""
    whole, parts = f"output_dir={tmp_path / 'whole'}", f"output_dir={tmp_path / 'parts'}"
    train(tiny(*RUNS[name], whole))
    train(tiny(*RUNS[name], parts, "train.max_steps=3"))
    train(tiny(*RUNS[name], parts, "data.num_workers=0"), resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert len(losses(tmp_path / "parts")) == 8
    assert_same_arrays(tmp_path / "whole", tmp_path / "parts")


def test_run_folder_and_summary(tiny, tmp_path):
    config = tiny("evaluate.every_epochs=1", "evaluate.at_end=[knn, linear, labels_1]", "train.keep_checkpoints=1")
    train(config)
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "log.jsonl", "summary.json", "checkpoints"}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.safetensors", "step_0000008.safetensors"}
    lines = journal(folder)
    training = [line for line in lines if "loss" in line]
    assert all({"step", "epoch", "loss", "lr", "images_per_second", "feature_std"} <= line.keys() for line in training)
    assert [line["epoch"] for line in lines if "knn" in line] == [0, 1]
    summary = json.loads((folder / "summary.json").read_text())
    assert {"seconds", "steps", "images_per_second", "knn", "linear", "labels_1"} == summary.keys()
    assert all(0 <= summary[item][who] <= 1 for item in ("knn", "linear", "labels_1")
               for who in ("pretrained", "untrained", "raw_pixels"))
    text = (folder / "config.yaml").read_text()
    assert "# paddle: " in text
    assert "# git_commit: " in text


def test_a_run_of_an_earlier_version_resumes(tiny, tmp_path):
    """Its saved configuration lacks the keys that came since; they are taken at their defaults."""
    config = tiny("train.max_steps=2")
    train(config)
    saved = checkpoint.find_checkpoint(tmp_path / "run")
    model, optim, meta = checkpoint.read_checkpoint(saved)
    for section, key in (("data", "loader"), ("schedule", "decay_epochs"), ("train", "recompute")):
        del meta["config"][section][key]
    checkpoint.save_checkpoint(saved, model, optim, meta)
    assert checkpoint.open_run(resolve(config), resume=True) == saved
    with pytest.raises(BadInput, match="decay_epochs was None, now"):
        checkpoint.open_run(resolve(tiny("train.max_steps=2", "schedule.decay_epochs=[1]")), resume=True)


def test_the_trained_classifier_is_measured(tiny, tmp_path, capsys):
    config = tiny(*SUPERVISED, "evaluate.at_end=[classifier, knn]", "schedule.epochs=1")
    found = train(config)
    assert found["classifier"].keys() == {"pretrained"}
    assert found["knn"].keys() == {"pretrained", "untrained", "raw_pixels"}
    printed = capsys.readouterr().out
    assert "the trained classifier" in printed
    again = evaluate.evaluate_checkpoint(config, checkpoint.find_checkpoint(tmp_path / "run"), ["classifier"])
    assert again["classifier"] == found["classifier"]
    run = build_run(config)            # the same by hand
    checkpoint.load_arrays(run.method, checkpoint.read_checkpoint(checkpoint.find_checkpoint(tmp_path / "run"))[0], "")
    run.method.eval()
    test = build_dataset(config.data.dataset, "test")
    images = np.stack([test.image(i) for i in range(len(test))])
    scores = run.method.head(run.method.backbone(to_images(images, run.views.mean, run.views.std)))
    right = (scores.numpy().argmax(axis=1) == test.labels).mean()
    assert found["classifier"]["pretrained"] == pytest.approx(right, abs=6e-5)


def test_no_classifier_where_none_is_trained(tiny):
    with pytest.raises(BadInput, match="'simclr' trains no classifier"):
        tiny("evaluate.at_end=[classifier]")


def test_resume_starts_where_there_is_nothing_and_ends_where_all_is_done(tiny, tmp_path):
    first = train(tiny(), resume=True)
    again = train(tiny(), resume=True)
    assert first["steps"] == again["steps"] == 8
    assert len(losses(tmp_path / "run")) == 8


def test_a_folder_with_a_run_is_not_overwritten(tiny, tmp_path):
    train(tiny("train.max_steps=2"))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match="already holds a run"):
        train(tiny())
    with pytest.raises(BadInput, match=r"optim.lr was 0.001, now 0.1"):
        train(tiny("optim.lr=0.1"), resume=True)
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_checkpoint_cadence(tiny, tmp_path):
    train(tiny("train.checkpoint_every_steps=3", "train.checkpoint_every_epochs=0", "train.keep_checkpoints=9"))
    names = [p.name for p in checkpoint.checkpoints_of(tmp_path / "run")]
    assert names == [f"step_{s:07d}.safetensors" for s in (3, 6, 8)]


def test_accumulation_sums_to_the_whole_batch_for_a_mean_loss(tiny):
    """Two micro-batches of a supervised run without BatchNorm give the gradients of one batch."""
    def gradients(accumulate):
        config = resolve(tiny(*overrides("supervised", mixup_alpha=0.0, label_smoothing=0.0),
                              f"train.accumulate_steps={accumulate}", "optim={name: sgd, lr: 1.0, momentum: 0.0}",
                              "schedule.warmup_epochs=0"))
        run = build_run(config)
        before = {n: p.numpy() for n, p in run.method.named_parameters()}
        train_step(run, next(iter(run.loader.epoch(0))), 0)
        return {n: before[n] - p.numpy() for n, p in run.method.named_parameters()}
    one, two = gradients(1), gradients(2)
    assert any(np.abs(v).max() > 1e-3 for v in one.values())
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-6)


def test_lr_is_scaled_and_follows_the_schedule(tiny):
    run = build_run(tiny("optim.lr=0.1", "optim.base_batch_size=16", "schedule.min_lr=0.01"))
    assert run.peak_lr == pytest.approx(0.05)
    rates = [lr_at(run, s) for s in range(run.total_steps)]
    assert max(rates) == pytest.approx(0.05)
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert rates[-1] > 0.01


def test_not_finite_loss_ends_the_run_and_keeps_the_last_checkpoint(tiny, tmp_path):
    with pytest.raises(NumericalFailure, match=r"is nan at step \d+ .*the last checkpoint"):
        train(tiny("optim={name: sgd, lr: 1e30}", "train.checkpoint_every_steps=1", "schedule.warmup_epochs=0"))
    _, _, meta = last_checkpoint(tmp_path / "run")
    assert meta["step"] == 1
    assert not (tmp_path / "run" / "summary.json").exists()


def test_interruption_saves_and_continues_exactly(tiny, tmp_path):
    whole = f"output_dir={tmp_path / 'whole'}"
    train(tiny(whole, "schedule.epochs=6"))

    with terminated_once(lambda: len(journal(tmp_path / "run")) >= 3):
        summary = train(tiny("schedule.epochs=6"))
    assert summary["interrupted"]
    assert 3 <= summary["steps"] < 24
    train(tiny("schedule.epochs=6"), resume=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_collapse_is_said(tiny, capsys):
    train(tiny("train.collapse_threshold=2.0", "train.max_steps=1"))
    assert "warning: the features' standard deviation" in capsys.readouterr().out


@pytest.mark.parametrize(("overrides", "words"), [
    (["data.batch_size=1"], "batch of 1 has no negatives"),
    (["model.method={name: moco, queue_size: 30}"], "queue_size 30 is not a multiple"),
    (["data.batch_size=64"], "fewer than one batch"),
    (["data.train_views={name: inception, img_size: 16}"], "needs 2 view(s)"),
    (["model.backbone.img_size=32"], "'model.backbone.img_size' is 32 but 'data.train_views.img_size' is 16"),
    (["data.eval_views.mean=0.5"], "expected the same normalisation"),
    ([override("model.head", CLASSIFIER)], "needs a projector"),
    (["model.method={name: supervised}", "model.head={name: linear, num_classes: 2}",
      "data.train_views={name: inception, img_size: 16}"],
     "'model.head.num_classes' is 2"),
    (["train.device=gpu:7"], "GPU"),
    (["optim.beta3=1.0"], "no option 'beta3'"),
])
def test_what_does_not_fit_is_said_before_anything_is_written(tiny, tmp_path, overrides, words):
    with pytest.raises(BadInput) as caught:
        train(tiny(*overrides))
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_sizes_and_normalisation_follow_the_views(tiny):
    config = tiny("model.backbone={name: mlp_mixer_nano}", "data.train_views={name: moco_v2, img_size: 16}")
    resolved = resolve(config)
    assert resolved.model.backbone.img_size == 16
    assert resolved.data.eval_views.img_size == 16
    assert resolved.data.eval_views.mean == pytest.approx([0.485, 0.456, 0.406])


def test_starting_from_another_run(tiny, tmp_path):
    train(tiny("train.max_steps=2"))
    source = last_checkpoint(tmp_path / "run")[0]
    run = build_run(tiny(f"train.init_from={tmp_path / 'run'}", *overrides("supervised")))
    for name, value in run.method.backbone.state_dict().items():
        assert np.array_equal(value.numpy(), source[f"backbone.{name}"])
    with pytest.raises(BadInput, match="another model"):
        build_run(tiny(f"train.init_from={tmp_path / 'run'}", "model.backbone.embed_dim=8"))


def test_visualdl_scalars(tiny, tmp_path):
    pytest.importorskip("visualdl")
    train(tiny("train.visualdl=true", "train.max_steps=2"))
    files = list((tmp_path / "run" / "visualdl").iterdir())
    assert files
    assert files[0].stat().st_size > 100


def test_step_seeds_do_not_depend_on_what_ran_before(tiny):
    def one_loss(noise):
        run = build_run(tiny())
        if noise:
            paddle.rand([7])
        return float(train_step(run, next(iter(run.loader.epoch(0))), 0)["loss"])
    assert one_loss(False) == one_loss(True)
