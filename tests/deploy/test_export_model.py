"""Exported networks: outputs equal to the network's, one line for what cannot be, nothing half written."""
import json

import numpy as np
import paddle
import pytest
from helpers.arrays import assert_same, state_of
from helpers.backbones import NANO, SMALL, LeavesPaddle
from helpers.gradients import assert_close
from helpers.marks import slow_but

from passl_mixer import build_backbone, build_head
from passl_mixer.checkpoint import read_checkpoint
from passl_mixer.config import dump
from passl_mixer.deploy.export import export_network, load_exported
from passl_mixer.deploy.predictor import OPERATORS, PROGRAMS, _math_libraries, has_bfloat16
from passl_mixer.errors import BadInput
from passl_mixer.training.trainer import train


def network(cfg, seed: int = 1):
    """A network in evaluation mode whose vectors and statistics are not those it starts with, and images for it."""
    paddle.seed(seed)
    backbone = build_backbone(cfg)
    for name, value in backbone.state_dict().items():
        if value.ndim == 1:
            value.set_value(value + 0.2 * paddle.rand(value.shape) + ("variance" in name))
    backbone.eval()
    size = backbone.img_size[0] if backbone.img_size else 32 if isinstance(cfg, str) else 16
    return backbone, size, np.random.default_rng(seed).standard_normal([3, 3, size, size]).astype("float32")


def eager(layer, images):
    with paddle.no_grad():
        return layer(paddle.to_tensor(images))


def assert_output(results, expected):
    """An exported network's outputs, float32 arrays, are the network's."""
    assert results.dtype == np.float32
    assert_close([results], [expected], 1e-5)


@pytest.mark.parametrize("name", slow_but(("MlpMixer", "ASMLP"), [*SMALL, *NANO]))
def test_features_of_every_family_and_small_network(tmp_path, name):
    backbone, size, images = network({"name": name, **SMALL[name]} if name in SMALL else name)
    said = export_network(backbone, tmp_path / "out", img_size=size, name=name)
    loaded = load_exported(tmp_path / "out")
    assert loaded.facts["onednn"]
    assert loaded.facts["operators"] in OPERATORS
    assert said.endswith(f"computed by oneDNN: {loaded.facts['operators']}")
    assert_output(loaded(images), eager(backbone, images))
    assert_output(loaded(images[:1]), eager(backbone, images[:1]))
    assert_output(load_exported(tmp_path / "out", onednn=False, threads=1)(images), eager(backbone, images))


@pytest.mark.parametrize("name", ["MlpMixer", "CycleMLP", *slow_but((), ["ResNet", "WaveMLP", "ASMLP"])])
def test_maps(tmp_path, name):
    backbone, size, images = network({"name": name, **SMALL[name]})
    export_network(backbone, tmp_path / "maps", what="maps", img_size=size, batch=2)
    maps = load_exported(tmp_path / "maps")(images[:2])
    wanted = eager(backbone.feature_maps, images[:2])
    assert len(maps) == len(wanted)
    for found, expected in zip(maps, wanted):
        assert_output(found, expected)


def test_the_choice_of_operators_is_kept_and_can_be_overruled(tmp_path):
    """All three are right on a Mixer; which is fastest is the machine's affair."""
    backbone, size, images = network("mlp_mixer_nano")
    export_network(backbone, tmp_path / "out", img_size=size)
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    for operators in OPERATORS:
        (tmp_path / "out" / "export.json").write_text(json.dumps({**facts, "operators": operators}))
        for onednn in (None, True, False):
            assert_output(load_exported(tmp_path / "out", onednn=onednn)(images), eager(backbone, images))


def test_what_breaks_with_onednn_says_so(tmp_path):
    class Normed(paddle.nn.Layer):
        in_chans, num_features = 3, 3

        def __init__(self):
            super().__init__()
            self.norm = paddle.nn.BatchNorm2D(3, data_format="NHWC")

        def forward(self, images):
            return self.norm(images.transpose([0, 2, 3, 1])).mean(axis=[1, 2])

    said = export_network(Normed(), tmp_path / "out", img_size=16)
    assert "without oneDNN: backbone.norm normalises maps [B, H, W, C]" in said
    with pytest.raises(BadInput, match=r"does not run with oneDNN: .*norm.*leave onednn out"):
        load_exported(tmp_path / "out", onednn=True)


def test_bfloat16_is_near_or_refused(tmp_path):
    backbone, size, images = network("mlp_mixer_nano")
    export_network(backbone, tmp_path / "out", img_size=size)
    if not has_bfloat16():
        with pytest.raises(BadInput, match="this one has none"):
            load_exported(tmp_path / "out", precision="bf16")
        return
    found, wanted = load_exported(tmp_path / "out", precision="bf16")(images), eager(backbone, images).numpy()
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 1e-5 < error < 2e-2
    with pytest.raises(BadInput, match="runs without oneDNN; use fp32"):
        load_exported(tmp_path / "out", precision="bf16", onednn=False)
    with pytest.raises(BadInput, match="precision is 'fp16', expected fp32 or bf16"):
        load_exported(tmp_path / "out", precision="fp16")


def test_a_call_leaves_the_threads_of_the_process(tmp_path):
    backbone, size, images = network({"name": "MlpMixer", **SMALL["MlpMixer"]})
    export_network(backbone, tmp_path / "out", img_size=size)
    libraries = _math_libraries()
    if not libraries:
        pytest.skip("this Paddle brings neither OpenMP nor MKL")
    before = [getattr(library, told)() for library, told, _ in libraries]
    try:
        for library, _, sets in libraries:
            getattr(library, sets)(2)
        wanted = [getattr(library, told)() for library, told, _ in libraries]      # MKL has no more than cores
        load_exported(tmp_path / "out", threads=1)(images)
        assert [getattr(library, told)() for library, told, _ in libraries] == wanted
    finally:
        for (library, _, sets), count in zip(libraries, before):
            getattr(library, sets)(count)


def test_training_mode_and_weights_are_not_changed_for_the_caller(tmp_path):
    backbone, size, images = network({"name": "ConvMLP", **SMALL["ConvMLP"]})
    before = state_of(backbone)
    export_network(backbone, tmp_path / "out", img_size=size)
    assert_same(state_of(backbone), before)
    backbone.train()
    backbone(paddle.to_tensor(images)).sum().backward()         # still an eager network
    assert backbone.norm.weight.grad is not None


def test_logits_come_from_the_head(tmp_path):
    backbone, size, images = network({"name": "MlpMixer", **SMALL["MlpMixer"]})
    head = build_head({"name": "linear", "num_classes": 5}, backbone.num_features)
    head.set_state_dict({n: paddle.randn(v.shape) for n, v in head.state_dict().items()})
    export_network(backbone, tmp_path / "out", head=head, what="logits", img_size=size)
    loaded = load_exported(tmp_path / "out")
    assert loaded.facts["num_classes"] == 5
    assert_output(loaded(images), eager(lambda x: head(backbone(x)), images))


@pytest.fixture
def trained(tiny, tmp_path):
    """A supervised run of one step, ``(run folder, its configuration file)``."""
    config = tiny("model.method={name: supervised}", "model.head={name: linear, num_classes: 4}",
                  "data.train_views={name: inception, img_size: 16}", "data.eval_views={mean: [0.4, 0.4, 0.4]}",
                  "data.train_views.mean=[0.4, 0.4, 0.4]", "train.max_steps=1")
    train(config)
    path = tmp_path / "run.yaml"
    path.write_text(dump(config))
    return tmp_path / "run", path


def test_command_exports_a_run(trained, tmp_path, command):
    run, config = trained
    for what, width in (("features", 16), ("logits", 4)):
        said = command("export", run, tmp_path / what, "-c", config, "--what", what)
        facts = json.loads((tmp_path / what / "export.json").read_text())
        assert facts["input_shape"] == [None, 3, 16, 16]
        assert facts["mean"] == [0.4, 0.4, 0.4]
        assert (facts["num_features"], facts["step"], facts["backbone"]["name"]) == (16, 1, "MlpMixer")
        assert facts["versions"]["paddle"] == paddle.__version__
        assert load_exported(tmp_path / what)(np.zeros([2, 3, 16, 16], "float32")).shape == (2, width)
    assert f"{tmp_path / 'logits'}: logits of MlpMixer" in said


def test_command_loads_the_trained_weights(trained, tmp_path, command):
    run, config = trained
    command("export", run, tmp_path / "out", "-c", config, "--img-size", "32", "--batch", "2")
    images = np.random.default_rng(0).standard_normal([2, 3, 32, 32]).astype("float32")
    model = read_checkpoint(next((run / "checkpoints").glob("step_*")))[0]
    backbone = build_backbone({"name": "MlpMixer", "img_size": 16, "patch_size": 4, "embed_dim": 16, "num_blocks": 1,
                               "pretrained": str(run)})
    assert np.array_equal(model["backbone.stem.weight"], backbone.stem.weight.numpy())
    larger = build_backbone({"name": "MlpMixer", "img_size": 32, "patch_size": 4, "embed_dim": 16, "num_blocks": 1,
                             "pretrained": str(run)})
    larger.eval()
    assert_output(load_exported(tmp_path / "out")(images), eager(larger, images))


@pytest.mark.parametrize(("arguments", "message"), [
    (["--what", "feature"], "did you mean 'features'"), (["--batch", "0"], "--batch is '0'; expected dynamic"),
    (["--img-size", "17"], "not a multiple of patch_size"), (["-o", "model.backbone.embed_dim=8"], "another model"),
    (["-o", "model.method={name: simclr}", "--what", "logits"], "trains no classifier")])
def test_command_refuses_in_one_line(trained, tmp_path, command, arguments, message):
    run, config = trained
    assert message in command.refused("export", run, tmp_path / "out", "-c", config, *arguments)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_a_network_that_cannot_be_exported_leaves_nothing(tmp_path):
    with pytest.raises(BadInput, match=r"^backbone 'odd' cannot be exported by this Paddle [^\n]*$"):
        export_network(LeavesPaddle(), tmp_path / "out", img_size=16, name="odd")
    assert not list(tmp_path.iterdir())


def test_a_program_that_computes_something_else_is_refused(tmp_path):
    class Forgets(paddle.nn.Layer):
        """A program holds what the first call did."""

        in_chans, num_features, calls = 3, 3, 0

        def __init__(self):
            super().__init__()
            self.map = paddle.nn.Linear(3, 3)

        def forward(self, images):
            self.calls += 1
            return self.map(images.mean(axis=[2, 3])) * float(self.calls)

    with pytest.raises(BadInput, match=r"the program's outputs differ from the network's by"):
        export_network(Forgets(), tmp_path / "out", img_size=16, name="odd")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(tmp_path):
    backbone, size, _ = network({"name": "MlpMixer", **SMALL["MlpMixer"]})
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="exists; remove it or choose another folder"):
        export_network(backbone, tmp_path / "out", img_size=size)
    assert not list((tmp_path / "out").iterdir())


def test_loading_refuses_what_it_cannot_run(tmp_path):
    backbone, size, images = network({"name": "MlpMixer", **SMALL["MlpMixer"]})
    export_network(backbone, tmp_path / "out", img_size=size, batch=3)
    loaded = load_exported(tmp_path / "out")
    for wrong in (images.astype("float64"), images[:2], images[:, :, :8], images[0], images.tolist()):
        with pytest.raises(BadInput, match=r"expected a NumPy array float32 \[3, 3, 16, 16\]"):
            loaded(wrong)
    with pytest.raises(BadInput, match="threads is 0"):
        load_exported(tmp_path / "out", threads=0)
    for program in PROGRAMS:
        (tmp_path / "out" / program).unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"or is incomplete, and this is Paddle .*export it again"):
        load_exported(tmp_path / "out")
    with pytest.raises(BadInput, match=r"no exported network"):
        load_exported(tmp_path)
