"""YAML, base, overrides: what is read, and what is refused with which words."""
import pytest
import yaml

from passl_mixer.config import dump, get_config
from passl_mixer.errors import BadInput

MINIMAL = """
output_dir: runs/x
model: {backbone: {name: a, width: 3}, head: linear, method: {name: simclr, temperature: 0.1}}
data: {dataset: {name: d}, train_views: v, eval_views: v, batch_size: 8}
optim: {name: adamw, lr: 1e-3}
schedule: {epochs: 2}
"""


def test_defaults_types_and_attributes(write):
    config = get_config(write(MINIMAL))
    assert config.optim.lr == 1e-3
    assert isinstance(config.optim.lr, float)
    assert config.seed == 0
    assert config.model.head == {"name": "linear"}
    assert config["train"]["log_every_steps"] == config.train.log_every_steps == 50
    with pytest.raises(AttributeError, match="did you mean 'schedule'"):
        _ = config.shedule


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.5e3", "-2e+4", ".5e1"])
def test_exponents_are_numbers(write, text):
    assert get_config(write(MINIMAL), [f"schedule.min_lr={text.lstrip('-')}"]).schedule.min_lr == abs(float(text))


def test_override_is_typed_and_merges(write):
    config = get_config(write(MINIMAL), ["model.backbone.width=5", "train.device=cpu", "evaluate.at_end=[knn]"])
    assert config.model.backbone == {"name": "a", "width": 5}
    assert config.evaluate.at_end == ["knn"]


@pytest.mark.parametrize("order", [1, -1])
def test_another_name_replaces_the_section(write, order):
    config = get_config(write(MINIMAL), ["model.backbone.name=b", "model.backbone.depth=2"][::order])
    assert config.model.backbone == {"name": "b", "depth": 2}


def test_base_relative_and_absolute_one_level(write, tmp_path):
    base = write(MINIMAL, "base.yaml")
    relative = get_config(write("base: base.yaml\nmodel: {backbone: {name: b}}\nseed: 7"))
    assert (relative.seed, relative.model.backbone, relative.model.method.name) == (7, {"name": "b"}, "simclr")
    child = write(f"base: {base}\nseed: 8", "child.yaml")
    assert get_config(child).seed == 8
    with pytest.raises(BadInput, match="one level only"):
        get_config(write("base: child.yaml", "grandchild.yaml"))


def test_dump_reads_back_equal(write):
    config = get_config(write(MINIMAL), ["optim.lr=1e-5"])
    assert get_config(write(dump(config), "again.yaml")) == config
    assert yaml.safe_load(dump(config))["optim"]["lr"] == 1e-5


@pytest.mark.parametrize(("overrides", "words"), [
    (["trian.device=cpu"], "no key 'trian'; did you mean 'train'?"),
    (["train.log_every_step=1"], "section 'train' has no key 'log_every_step'; did you mean 'log_every_steps'?"),
    (["data.batch_size=many"], "'data.batch_size' is 'many', expected an integer"),
    (["data.batch_size=0"], "expected a number above 0"),
    (["optim.lr=fast"], "'optim.lr' is 'fast', expected a number"),
    (["train=3"], "'train' is 3, expected a mapping"),
    (["model.backbone={width: 3}", "model.backbone.name=7"], "expected a mapping with 'name'"),
    (["seed"], "not of the form key.subkey=value"),
    (["seed=[1"], "not YAML"),
    (["evaluate.at_end=[knm]"], "did you mean 'knn'?"),
    (["optim.name=sgd"], "'optim.lr' is missing"),
    (["train.accumulate_steps=3"], "divides evenly"), (["train.accumulate=3"], "'train.accumulate_steps' is 3"),
    (["train.accumulate=2", "train.accumulate_steps=4"],
     "'train.accumulate' is 2 and 'train.accumulate_steps' is 4, two names of one key; remove train.accumulate"),
    (["data.loader=dally"], "'data.loader' is 'dally', expected threads or dali"),
    (["train.precision=half"], "'train.precision' is 'half', expected auto, fp32, bf16 or fp16"),
    (["train.max_steps=0"], "'train.max_steps' is 0"),
])
def test_bad_overrides(write, overrides, words):
    with pytest.raises(BadInput) as caught:
        get_config(write(MINIMAL), overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [
    ("a: [1", "line"), ("seed: 1\nseed: 2", "'seed' is given twice"), ("- 1", "expected sections"),
    ("seed: 1", "'output_dir' is missing")])
def test_bad_files(write, text, words):
    with pytest.raises(BadInput) as caught:
        get_config(write(text))
    assert words in str(caught.value)


def test_missing_file_names_the_nearest(write, tmp_path):
    write(MINIMAL, "b16_simclr.yaml")
    with pytest.raises(BadInput, match=r"did you mean 'b16_simclr.yaml'"):
        get_config(tmp_path / "b16_simlcr.yaml")
    with pytest.raises(BadInput, match="does not exist"):
        get_config(tmp_path / "nowhere" / "a.yaml")


def test_binary_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(BadInput, match=r"UTF-8|YAML"):
        get_config(path)
