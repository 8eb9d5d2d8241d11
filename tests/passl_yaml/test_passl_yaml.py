"""Files of PASSL v1.1: what they become, that they train, and that no key of theirs is dropped in silence.

The files here are ours, shorter and with small networks, with the keys of PASSL's own.
"""
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml
from passl_files import FILES, MERGES

from passl_mixer import build_backbone, build_head, get_config
from passl_mixer.cli import main
from passl_mixer.config import read_config
from passl_mixer.data import rng
from passl_mixer.errors import BadInput
from passl_mixer.passl_yaml.translate import recognises, translate
from passl_mixer.training.optim import learning_rate
from passl_mixer.training.run import build_run
from passl_mixer.training.step import lr_at

ROOT = Path(__file__).resolve().parents[2]
KINDS = sorted(FILES)
QUICK = ["train.device=cpu", "train.max_steps=1", "train.log_every_steps=1", "evaluate.knn.k=3"]


@pytest.fixture
def write(tmp_path):
    """Write a file of PASSL's: ``write(kind, **sections) -> path``; images, captions and merges lie beside it."""
    def make(kind, text=None):
        path = tmp_path / f"{kind}.yaml"
        text = (text or FILES[kind]).replace("DATA", str(tmp_path / "data"))
        path.write_text(text.replace("OUT", str(tmp_path / "out")))
        return path
    return make


@pytest.fixture
def images(tmp_path):
    """Images in two classes, eight for training and eight for the test; captions and merges for CLIP."""
    for split in ("train", "val"):
        for i in range(8):
            folder = tmp_path / "data" / split / ("cat", "dog")[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng(0, 0, i).integers(0, 256, (40, 44, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{i}.png"), pixels)
            (folder / f"{i}.txt").write_text(f"a {folder.name} number {i}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return tmp_path / "merges.txt"


def overrides(kind, images):
    """Seconds instead of minutes: one step, and where the file's ResNet would have a second copy a smaller network."""
    more = [f"data.dataset.merges={images}"] if kind == "clip" else []
    small = ["model.backbone.name=conv_mlp_nano"] if kind in ("moco_v1", "moco_v2", "byol", "simsiam") else []
    return [f for o in [*QUICK, *more, *small] for f in ("-o", o)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_every_kind_trains_and_says_where_it_deviates(kind, write, images, tmp_path, capsys):
    if kind == "clip":
        pytest.importorskip("ftfy"), pytest.importorskip("regex")
    path = write(kind)
    assert main(["train", "-c", str(path), *overrides(kind, images)]) == 0
    said = capsys.readouterr().out
    assert "is a file of PASSL v1.1" in said
    notes = read_config(path)[1]
    assert all(f"  - {note}\n" in said for note in notes)
    lines = [json.loads(line) for line in (tmp_path / "out" / kind / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1]
    assert np.isfinite(lines[0]["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_notebook_line_builds_backbone_and_head(kind, write):
    config = get_config(write(kind))
    assert config.model.architecture is config.model.backbone
    assert "architecture" not in config.model
    backbone, head = build_backbone(config.model.architecture), build_head(config.model.head)
    size = config.data.train_views.img_size
    assert list(head(backbone(paddle.rand([2, 3, size, size]))).shape) == [2, head.out_features]


def test_a_native_file_has_no_architecture(tiny):
    with pytest.raises(AttributeError, match="architecture"):
        _ = tiny().model.architecture


def test_the_recipe_of_moco_v1(write, tmp_path):
    config = get_config(write("moco_v1"))
    assert config.output_dir == str(tmp_path / "out" / "moco_v1")
    assert config.model.backbone == {"name": "resnet18"}
    assert config.model.head == {"name": "mlp", "layers": 1, "norm": None, "out": 8, "in_features": 512}
    assert config.model.method == {"name": "moco", "queue_size": 64, "momentum": 0.9, "temperature": 0.07}
    assert config.data.dataset == {"name": "image_folder", "root": str(tmp_path / "data")}
    views = config.data.train_views
    assert (views.name, views.crop_min, views.jitter, views.jitter_p) == ("moco_v1", 0.2, [0.4, 0.4, 0.4, 0.4], 1.0)
    assert views.mean == config.data.eval_views.mean == [0.485, 0.456, 0.406]
    assert (config.optim.name, config.optim.lr, config.optim.base_batch_size) == ("sgd", 0.03, 32)
    assert (config.data.batch_size, config.data.num_workers) == (4, 1)
    assert (config.schedule.decay_epochs, config.schedule.decay_factor) == ([2, 3], 0.1)


@pytest.mark.parametrize(("kind", "where", "expected"), [
    ("moco_v2", "data.train_views.name", "moco_v2"), ("moco_v2", "data.train_views.jitter_p", 0.8),
    ("moco_v2", "data.train_views.blur_p", 0.5), ("moco_v2", "model.head.hidden", 16),
    ("simclr", "data.train_views.name", "simclr"), ("simclr", "data.train_views.jitter", [0.4, 0.4, 0.4, 0.1]),
    ("simclr", "data.train_views.style", "torchvision"), ("byol", "data.train_views.style", "torchvision"),
    ("simclr", "model.backbone.stem", "no_pool"), ("simclr", "optim.lr", pytest.approx(32 ** 0.5)),
    ("simclr", "optim.base_batch_size", 32), ("simclr", "schedule.warmup_epochs", 1),
    ("simclr", "evaluate.batch_size", 8),
    ("byol", "data.train_views.blur_p", [1.0, 0.1]), ("byol", "data.train_views.solarize_p", [0.0, 0.2]),
    ("byol", "model.method.momentum", 0.99), ("byol", "optim.base_batch_size", 64),
    ("byol", "optim.weight_decay", 1e-6),
    ("byol", "model.method.predictor.hidden", 16), ("byol", "schedule.warmup_epochs", 1.0),
    ("simsiam", "model.head.last_affine", False), ("simsiam", "model.method.predictor.hidden_bias", False),
    ("simsiam", "optim.fixed_lr", ["predictor.*"]), ("simsiam", "model.backbone.zero_init_residual", True),
    ("mixer", "optim.clip_norm", 1.0), ("mixer", "optim.base_batch_size", 64),
    ("mixer", "data.train_views.flip_p", 0.0),
    ("mixer", "data.train_views.crop_ratio", 1.0), ("mixer", "data.train_views.interpolation", "bicubic"),
    ("moco_clas", "model.method.freeze_backbone", True), ("moco_clas", "evaluate.at_end", ["classifier"]),
    ("moco_clas", "optim.lr", 30.0), ("moco_clas", "data.eval_views.resize", 36),
    ("moco_clas", "data.eval_views.interpolation", "bilinear"),
    ("byol_clas", "optim.nesterov", True), ("byol_clas", "optim.base_batch_size", 1024),
    ("byol_clas", "data.train_views.mean", [0.485, 0.456, 0.406]),
    ("clip", "model.method.text.width", 32), ("clip", "model.backbone.stem_bias", False), ("clip", "optim.eps", 1e-8),
    ("clip", "schedule.min_lr", 1e-6), ("clip", "data.dataset.name", "image_text_folder")])
def test_what_a_key_becomes(kind, where, expected, write):
    value = get_config(write(kind))
    for key in where.split("."):
        value = value[key]
    assert value == expected


def test_old_keys_beside_a_translation(write, tmp_path, capsys):
    file = write("clip")
    overrides = ["train.accumulate=2", "schedule.final_lr=1e-7"]
    native = tmp_path / "native.yaml"
    native.write_text(f"base: {file}\ntrain: {{accumulate: 2}}\nschedule: {{final_lr: 1e-7}}\n")
    for config in (get_config(file, overrides), get_config(native)):
        assert (config.train.accumulate_steps, config.schedule.min_lr) == (2, 1e-7)
    assert capsys.readouterr().err.splitlines() == 2 * [
        "schedule.final_lr is called schedule.min_lr now; rename it",
        "train.accumulate is called train.accumulate_steps now; rename it"]


def paddles(kind, lr, epochs, steps):
    """PASSL's schedulers, of Paddle, stepped as PASSL steps them."""
    if kind == "moco_v1":
        return paddle.optimizer.lr.MultiStepDecay(lr, [2 * steps, 3 * steps])
    return paddle.optimizer.lr.CosineAnnealingDecay(lr, epochs * steps)


@pytest.mark.parametrize("kind", ["moco_v1", "moco_v2"])
def test_the_rate_of_every_step_is_paddles(kind, write, images):
    run = build_run(get_config(write(kind), ["data.batch_size=8", "train.device=cpu"]))
    theirs = paddles(kind, run.config.optim.lr, run.config.schedule.epochs, run.steps_per_epoch)
    for i in range(run.total_steps):
        assert lr_at(run, i) == pytest.approx(theirs.last_lr * 8 / 32, rel=1e-6), i
        theirs.step()


def test_the_rate_after_a_warmup_in_steps_is_passls_cosine(write):
    """BYOL's published run: the rate at the same fraction of the run, after the warm-up."""
    config = get_config(write("byol"))
    total, warmup, lr = 80, 20, config.optim.lr         # T_max and warmup_steps of the file
    ours = [learning_rate(i, base=lr, total_steps=total, warmup_steps=round(config.schedule.warmup_epochs * 20))
            for i in range(total)]
    theirs = [0.5 * lr * (1 + np.cos(np.pi * (i - warmup) / (total - warmup))) for i in range(warmup, total)]
    np.testing.assert_allclose(ours[warmup:], theirs, rtol=1e-9, atol=1e-12)


def mappings(tree, path=()):
    """Paths of all mappings in a tree of dicts and lists."""
    if isinstance(tree, dict):
        yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from mappings(value, (*path, key))


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_anywhere_is_dropped(kind):
    """A strange key in any mapping of any file is refused by its path and value."""
    content = yaml.safe_load(FILES[kind])
    translate(content)
    places = list(mappings(content))
    assert len(places) > 10
    for place in places:
        broken = copy.deepcopy(content)
        inner = broken
        for key in place:
            inner = inner[key]
        inner["strange"] = 17
        with pytest.raises(BadInput) as error:
            translate(broken)
        assert "strange: 17' has no translation" in str(error.value), place
        assert all(str(key) in str(error.value) for key in place), place


@pytest.mark.parametrize(("kind", "old", "new", "words"), [
    ("moco_v1", "name: MoCo", "name: DenseCL", "'model.name' is 'DenseCL', which is not translated; known: MoCo"),
    ("moco_v1", "in_channels: 512", "in_channels: 2048", "'model.neck.in_channels: 2048' cannot .* write 512"),
    ("moco_v1", "name: RandomGrayscale", "name: AugMix", r"view_trans1\[0\].name' is 'AugMix'.*known: Random"),
    ("moco_v1", "milestones: [2, 3]", "milestones: 2", "'lr_scheduler.milestones' is 2, expected"),
    ("moco_v1", "size: 32", "size: [32, 24]", "square images"),
    ("moco_v1", "scale: [0.2, 1.]", "scale: [0.2, 0.9]", "as large as the image"),
    ("moco_v1", "depth: 18", "depth: 18\n    frozen_stages: 2", "'model.backbone.frozen_stages: 2' cannot"),
    ("moco_v1", "epochs: 4", "total_iters: 4", "'epochs' is missing"),
    ("moco_v1", "drop_last: True", "drop_last: True\n      name: DistributedRepeatedAugSampler", "drawn without repet"),
    ("moco_v1", "seed: 0", "seed: 0\nuse_amp: True", "train.precision=bf16"),
    ("moco_v1", "return_two_sample: True", "return_two_sample: False", "needs two views"),
    ("moco_v2", "T_max: 4", "T_max: 9", "'lr_scheduler.T_max: 9' cannot be honoured: .* 4 epochs"),
    ("moco_v2", "sigma: [0.1, 2.0]", "sigma: [0.1, 5.0]", "sigma is uniform in"),
    ("moco_v2", "name: Momentum", "name: RMSProp", "'optimizer.name' is 'RMSProp'"),
    ("byol", "target_decay_method: cosine", "target_decay_method: fixed", "'model.target_decay_method: fixed' cannot"),
    ("byol", "epsilon: 1e-9", "epsilon: 0.1", "'optimizer.epsilon: 0.1' cannot"),
    ("byol", "end_lr: 0.8", "end_lr: 0.9", "make them equal"),
    ("simsiam", "unit: epoch", "unit: iter", "counts T_max in steps"),
    ("simsiam", "name: SimsiamOptimizerHook", "name: SwAVOptimizerHook", "'optimizer_config.name'"),
    ("mixer", "embed_dim: 32", "embed_dim: 48", "'model.head.in_channels: 32' cannot .* write 48"),
    ("mixer", "name: global_norm", "name: clip_norm", "'optimizer.grad_clip.name'"),
    ("mixer", "- name: ToRGB", "- name: ColorJitter\n          hue: 0.1", "'jitter'; the recipe for one view"),
    ("mixer", "return_label: True", "return_label: False", "a classifier needs the labels"),
    ("moco_clas", "frozen_stages: 4", "frozen_stages: 3", "all of the backbone is frozen here"),
    ("moco_clas", "size: 36", "size: [36, 36]", "evaluation here is Resize"),
    ("moco_clas", "name: EvaluateHook", "name: VisualHook", r"custom_config\[0\].name' is 'VisualHook'"),
    ("clip", "vision_layers: 1", "vision_layers: [3, 4]", "one integer is ViT"),
    ("clip", "T_max: 4", "T_max: 3.5", "write 2"),
    ("clip", "name: ToTensor", "name: Transpose\n        - name: ToTensor\n          p: 1", "p: 1' has no "
                                                                                            "translation")])
def test_what_cannot_be_honoured_is_named_with_the_way_out(kind, old, new, words, write, capsys):
    assert old in FILES[kind]
    path = write(kind, FILES[kind].replace(old, new, 1))
    with pytest.raises(BadInput, match=words) as error:
        get_config(path)
    assert str(error.value).startswith(f"{path}, a file of PASSL v1.1: ")
    assert "\n" not in str(error.value)
    assert main(["train", "-c", str(path)]) == 2


def test_filters_of_crops_and_evaluation_are_the_files(write):
    views = get_config(write("byol", FILES["byol"].replace("interpolation: bicubic", "interpolation: bilinear"))).data
    assert (views.train_views.name, views.train_views.interpolation) == ("byol", "bilinear")
    text = FILES["moco_clas"].replace("size: 36\n", "size: 36\n          interpolation: bicubic\n", 1)
    assert get_config(write("moco_clas", text)).data.eval_views.interpolation == "bicubic"
    with pytest.raises(BadInput, match=r"interpolation: lanczos' .*bilinear and bicubic are there"):
        get_config(write("moco_clas", text.replace("interpolation: bicubic", "interpolation: lanczos")))


@pytest.mark.parametrize("kind", ["moco_v1", "mixer"])
def test_a_dump_is_the_same_configuration_and_runs_by_itself(kind, write, images, tmp_path, capsys):
    path, out = write(kind), tmp_path / "native.yaml"
    quick = ["train.max_steps=1", "train.device=cpu", "model.backbone.name=mlp_mixer_nano"]
    assert main(["train", "-c", str(path), "--dump", str(out), *(f for o in quick for f in ("-o", o))]) == 0
    assert not (tmp_path / "out").exists()
    assert get_config(out) == get_config(path, quick)
    assert not recognises(yaml.safe_load(out.read_text()))
    assert "# translated from PASSL: data.batch_size 4" in out.read_text()
    assert main(["train", "-c", str(out)]) == 0
    capsys.readouterr()
    assert main(["train", "-c", str(path), "--dump", str(out)]) == 2
    assert "exists; remove it" in capsys.readouterr().err


def test_a_native_file_dumps_what_it_resolves_to(tiny, tmp_path):
    config, out = tiny("seed=3"), tmp_path / "whole.yaml"
    assert main(["train", "-c", str(tmp_path / "tiny.yaml"), "-o", "seed=3", "--dump", str(out)]) == 0
    assert get_config(out) == config
    assert yaml.safe_load(out.read_text())["evaluate"]["few_labels"]["draws"] == 3


def test_another_backbone_is_one_override_and_a_resumed_run_goes_on(write, images, tmp_path, capsys):
    command = ["train", "-c", str(write("moco_v2")), "-o", "train.device=cpu",
               "-o", "model.backbone.name=conv_mlp_nano"]
    assert main([*command, "-o", "train.max_steps=1"]) == 0
    assert main([*command, "-o", "train.max_steps=2", "--resume"]) == 0
    assert "resumed from" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "moco_v2" / "summary.json").read_text())["steps"] == 2


def test_overrides_and_files_on_top_speak_native_keys(write, tmp_path):
    child = tmp_path / "child.yaml"
    child.write_text(f"base: {write('moco_v1').name}\nmodel: {{backbone: {{name: mlp_mixer_nano}}}}\nseed: 7")
    config, notes = read_config(child, ["optim.lr=0.5", "data.train_views.gray_p=0.3"])
    assert (config.seed, config.optim.lr, config.data.train_views.gray_p) == (7, 0.5, 0.3)
    assert config.model.architecture == {"name": "mlp_mixer_nano"}
    assert "in_features" not in config.model.head
    assert notes
    with pytest.raises(BadInput, match="has no key 'dataloader'"):
        get_config(write("moco_v1"), ["dataloader.train.sampler.batch_size=2"])


def test_clip_says_that_it_needs_the_merges(write, images, capsys):
    assert main(["train", "-c", str(write("clip")), "-o", "train.device=cpu"]) == 2
    said = capsys.readouterr()
    assert "needs option 'merges'" in said.err
    assert "-o data.dataset.merges=" in said.out


@pytest.mark.parametrize(("text", "words"), [
    ("Global: {seed: 0}\nModel: {name: ResNet50}\nDataLoader: {}", "neither .* nor .* it has Global, Model, "
                                                                   "DataLoader"),
    ("total_epochs: 3\nworkflow: [1]\nmodel: {type: SimSiam}", "neither a configuration of passl_mixer .* nor a "
                                                               "file of"),
    ("model: {backbone: a, head: b, method: c}\ndata: {}\noptimizer: {}", "no key 'optimizer'; did you mean 'optim'")])
def test_a_file_of_somebody_else_gets_one_clear_line(text, words, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=words) as error:
        get_config(path)
    assert "\n" not in str(error.value)


def test_the_translator_needs_neither_paddle_nor_the_rest_of_the_package(write):
    """It runs before Paddle loads, and the configuration may import it without a circle."""
    allowed = {"passl_mixer.errors", "passl_mixer.registry", "passl_mixer"}
    for path in (ROOT / "passl_mixer" / "passl_yaml").glob("*.py"):
        found = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        ours = {m.split(".passl_yaml")[0] for m in found if m.startswith("passl_mixer")}
        assert ours <= allowed, path
        assert not {"paddle", "numpy", "cv2"} & {m.split(".")[0] for m in found}, path
    command = f"import sys; from passl_mixer import get_config; get_config({str(write('moco_v1'))!r}); "
    subprocess.run([sys.executable, "-c", command + "sys.exit('paddle' in sys.modules)"], check=True, cwd=ROOT)
