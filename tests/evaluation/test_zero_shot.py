"""From prompts to classes to accuracy, on a CLIP trained for seconds; the commands as users type them."""
import shutil

import cv2
import numpy as np
import paddle
import pytest
import yaml

from passl_mixer import checkpoint
from passl_mixer.cli import main
from passl_mixer.config import get_config
from passl_mixer.errors import BadInput
from passl_mixer.evaluation.zero_shot import classifier, evaluate_zero_shot, top_k_hits
from passl_mixer.text.prompts import class_prompts, read_prompts
from passl_mixer.training.trainer import train

pytest.importorskip("ftfy")
pytest.importorskip("regex")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 230), "white": (230, 230, 230),
           "black": (20, 20, 20), "yellow": (220, 220, 20)}
CONFIG = {
    "seed": 0, "output_dir": "run",
    "model": {
        "backbone": {"name": "MlpMixer", "patch_size": 4, "embed_dim": 16, "num_blocks": 1},
        "head": {"name": "mlp", "layers": 1, "out": 16, "norm": None, "last_bias": False},
        "method": {"name": "clip", "text": {"width": 16, "num_layers": 1, "num_heads": 2}}},
    "data": {
        "dataset": {"name": "image_text_folder", "context_length": 8}, "eval_dataset": {"name": "image_folder"},
        "train_views": {"name": "inception", "img_size": 16, "crop_min": 0.8}, "eval_views": {"name": "center_crop"},
        "batch_size": 24, "num_workers": 1},
    "optim": {"name": "adamw", "lr": 1e-2}, "schedule": {"epochs": 12},
    "train": {"device": "cpu"}, "evaluate": {"knn": {"k": 3}}}


def paint(path, colour, seed):
    noise = np.random.default_rng(seed).integers(-20, 20, (16, 16, 3))
    image = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Coloured squares with captions, a vocabulary learned from them, and the same colours in class folders."""
    root = tmp_path_factory.mktemp("world")
    for i in range(96):
        colour = list(COLOURS)[i % 6]
        paint(root / "pairs" / f"{i}.png", colour, i)
        (root / "pairs" / f"{i}.txt").write_text((f"a {colour} square", f"it is {colour}")[i // 6 % 2])
    for split, count in (("train", 3), ("val", 4)):
        for colour in COLOURS:
            for i in range(count):
                paint(root / "classes" / split / colour / f"{i}.png", colour, 1000 + i)
    assert main(["bpe", str(root / "pairs"), str(root / "merges.txt"), "--merges", "100"]) == 0
    return root


def clip_config(folder, world, *overrides):
    (folder / "clip.yaml").write_text(yaml.safe_dump(CONFIG))
    return get_config(folder / "clip.yaml", [
        f"output_dir={folder}/run", f"data.dataset.root={world}/pairs", f"data.dataset.merges={world}/merges.txt",
        f"data.eval_dataset.root={world}/classes", *overrides])


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """``(configuration file, run folder)`` of a CLIP that knows its colours."""
    folder = tmp_path_factory.mktemp("trained")
    train(clip_config(folder, world, "evaluate.every_epochs=12", "evaluate.at_end=[knn]"))
    return folder / "run" / "config.yaml", folder / "run"


@pytest.fixture
def measure(trained):
    """The command that evaluates the trained CLIP, as far as every test has it."""
    config, folder = trained
    return ["eval", "-c", config, "--checkpoint", folder]


@pytest.fixture
def prompts(tmp_path):
    def write(text, name="prompts.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name
    return write


def test_templates_find_the_classes(measure, prompts, command):
    out, err = command.ends(0, *measure, "--zero-shot", prompts("a {} square\n\n it is {} \n"))
    assert err == ""
    line = next(line for line in out.splitlines() if line.startswith("zero-shot, 6 classes, 12 prompts: top-1 "))
    assert float(line.split("top-1 ")[1].split(" %")[0]) >= 80
    assert "of 24)" in line
    assert "top-5" in line


def test_one_line_a_class_and_the_wrong_names(trained, measure, prompts, command):
    """The words decide: with the names of other classes nothing is found."""
    config, folder = trained
    names = sorted(COLOURS)
    accuracy = []
    for order in (names, names[1:] + names[:1]):
        lines = "\n".join(f"a {name} square | it is {name}" if name != "red" else "a red square" for name in order)
        command(*measure, "--zero-shot", prompts(lines))
        found = evaluate_zero_shot(get_config(config), checkpoint.find_checkpoint(folder), lines.splitlines(), "there")
        assert (found["images"], found["classes"], found["prompts"]) == (24, 6, 11)
        accuracy.append(found["top1"])
    assert accuracy[0] >= 0.8
    assert accuracy[1] <= 0.2


def test_knn_is_measured_on_the_labelled_images_in_training_and_after(trained, measure, prompts, command):
    folder = trained[1]
    assert '"knn"' in (folder / "summary.json").read_text()
    assert any('"knn"' in line for line in (folder / "log.jsonl").read_text().splitlines())
    out = command(*measure, "--knn", "--no-baselines", "--zero-shot", prompts("{}"))
    assert "kNN" in out
    assert "zero-shot" in out


def test_the_images_of_the_training_need_not_be_there(measure, world, prompts, command):
    shutil.move(world / "pairs", world / "moved")
    try:
        command(*measure, "--zero-shot", prompts("{}"))
    finally:
        shutil.move(world / "moved", world / "pairs")


def test_without_a_resolved_configuration_the_vocabulary_is_enough(trained, world, prompts, tmp_path, command):
    """The file that a user wrote, which leaves the sizes of the text tower to the captions' vocabulary."""
    config, folder = trained
    (tmp_path / "clip.yaml").write_text(yaml.safe_dump(CONFIG))
    given = ["--checkpoint", folder, "--zero-shot", prompts("it is {}")]
    elsewhere = [f"data.eval_dataset.root={world}/classes", "data.dataset.root=nowhere"]
    resolved = command("eval", "-c", config, *given, options=elsewhere)
    written = ["eval", "-c", tmp_path / "clip.yaml", *given]
    assert command.ends(0, *written, options=[*elsewhere, f"data.dataset.merges={world}/merges.txt"]) == (resolved, "")
    for options, words in [([], "dataset 'image_text_folder' has no 'merges'"),
                           (["data.dataset.merges=none.txt"], "no merges file")]:
        error = command.refused(*written, options=[*elsewhere, *options])
        assert words in error
        assert "from the training captions" in error
    for option, words in [("context_lenght=8", "did you mean 'context_length'"),
                          ("context_length=long", "expected an integer")]:
        assert words in command.ends(2, *written, options=[*elsewhere, f"data.dataset.{option}"])[1]


@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty"), ("\n  \n", "is empty"), ("a\nb\n", "has 2 lines without {}, but the data has 6 classes"),
    ("a {}\nb\n", "1 of 2 lines are templates with {}, but 'b' is not"), (None, "no file of prompts"),
    ("a\nb\n|\nd\ne\nf\n", "the line of class 'green' holds no prompt")])
def test_prompts_that_do_not_fit_end_in_one_line(measure, prompts, tmp_path, command, text, words):
    path = tmp_path / "none.txt" if text is None else prompts(text)
    error = command.refused(*measure, "--zero-shot", path)
    assert words in error
    assert str(path) in error


def test_broken_utf8_in_prompts(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"a {}\nF\xfc\xdfe {}\n")
    with pytest.raises(BadInput, match="line 2: not UTF-8"):
        read_prompts(tmp_path / "p.txt")


def test_methods_and_data_without_words_are_refused(tiny, trained, measure, prompts, tmp_path, command):
    error = command.refused(*measure, "--zero-shot", prompts("{}"), options=["data.eval_dataset=null"])
    assert "data.eval_dataset" in error
    tiny()
    other = ["eval", "-c", tmp_path / "tiny.yaml", "--checkpoint", trained[1], "--zero-shot", prompts("{}")]
    assert "'simclr'; expected 'clip'" in command.refused(*other)


def test_supervised_training_on_captions_is_refused(tmp_path, world):
    config = clip_config(tmp_path, world, "model.method.name=supervised", "model.head={name: linear, num_classes: 4}")
    with pytest.raises(BadInput, match="needs classes, but dataset 'image_text_folder' has captions"):
        train(config)


def test_without_labelled_images_training_says_so_and_goes_on(tmp_path, world, capsys):
    train(clip_config(tmp_path, world, "data.eval_dataset=null", "evaluate.at_end=[knn]", "train.max_steps=1"))
    assert "no evaluation: the images have captions" in capsys.readouterr().out


def test_labelled_images_that_are_missing_stop_the_run_before_it_starts(tmp_path, world):
    with pytest.raises(BadInput, match="nowhere"):
        train(clip_config(tmp_path, world, "data.eval_dataset.root=nowhere"))
    assert not (tmp_path / "run").exists()


def test_prompts_are_put_together():
    assert class_prompts(["a {}", "the {}, {}"], ["x", "y z"], "f") == [["a x", "the x, x"], ["a y z", "the y z, y z"]]
    assert class_prompts(["x|the x", " y "], ["1", "2"], "f") == [["x", "the x"], ["y"]]


class _Words:
    """Each text is one token: its place in a list."""

    def __init__(self, texts):
        self.texts = texts

    def encode_batch(self, texts):
        return np.array([[self.texts.index(t)] for t in texts], np.int32)


def test_the_vector_of_a_class_is_the_normalised_mean_of_its_prompts():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(5, 8)).astype("float32")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    groups = [["a", "b", "c"], ["d"], ["e", "a"]]
    found = classifier(lambda ids: paddle.to_tensor(embeddings)[ids.squeeze(1)], _Words(list("abcde")), groups,
                       batch_size=2)
    for column, rows in enumerate(([0, 1, 2], [3], [4, 0])):
        mean = sum(embeddings[row] for row in rows) / len(rows)
        np.testing.assert_allclose(found[:, column], mean / np.sqrt((mean ** 2).sum()), rtol=1e-5)


def test_hits_against_a_loop_and_ties_are_misses():
    scores, labels = np.random.default_rng(1).normal(size=(50, 7)), np.arange(50) % 7
    for k in (1, 3, 5):
        slow = sum(label in np.argsort(-row)[:k] for row, label in zip(scores, labels))
        assert top_k_hits(scores, labels, k) == slow
    assert top_k_hits(np.zeros((4, 7)), labels[:4], 5) == 0
    assert top_k_hits(np.full((4, 7), np.nan), labels[:4], 5) == 0
