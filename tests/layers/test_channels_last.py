"""``train.channels_last``: another layout inside; numbers, names, files and maps as without."""
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers.backbones import SMALL
from paddle import nn

from passl_mixer import build_backbone, list_backbones
from passl_mixer.checkpoint import arrays_of, load_arrays, read_checkpoint
from passl_mixer.deploy.export import export_network
from passl_mixer.deploy.predictor import load_exported
from passl_mixer.layers.batch_norm import BatchNorm2D, synchronise
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.data_format import set_data_format
from passl_mixer.layers.recompute import set_recompute
from passl_mixer.registry import BACKBONES
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step
from passl_mixer.training.trainer import train

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from bench import systems

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")
ENTRIES = {
    "ResNet": {"name": "ResNet", "depth": 18},
    "bottlenecks": {"name": "ResNet", "depth": 50, "stem": "no_pool"},
    "ConvMixer": {"name": "ConvMixer", **SMALL["ConvMixer"], "patch_size": 4, "kernel_size": 5},
    "ConvMLP": {"name": "ConvMLP", **SMALL["ConvMLP"], "drop_path_rate": 0.0},
}
CONV_MLP = "model.backbone={name: ConvMLP, stem_channels: 8, num_conv_blocks: 1, embed_dims: [8, 16], " \
           "depths: [1, 1], mlp_ratios: [1, 1]}"
CONV_MIXER = "model.backbone={name: ConvMixer, embed_dim: 8, num_blocks: 1, kernel_size: 3, patch_size: 4}"
BYOL = "model.method={name: byol}"
SGD = "optim={name: sgd, lr: 0.01}"


@pytest.fixture
def in_double():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def built(entry: dict, *, turned: bool, training: bool = False):
    paddle.seed(3)
    backbone = build_backbone(entry)
    backbone.train() if training else backbone.eval()
    if turned:
        set_data_format(backbone, "NHWC")
    return backbone


def everything(backbone, size=(32, 28)) -> dict:
    """Features, maps, input gradient, gradients of parameters and the state after two passes, by name."""
    rng, found = np.random.default_rng(0), {}
    for step in range(2):
        dtype = paddle.get_default_dtype()
        images = paddle.to_tensor(rng.standard_normal([4, 3, *size]).astype(dtype), stop_gradient=False)
        features = backbone(images)
        (features * paddle.to_tensor(rng.standard_normal(features.shape).astype(dtype))).sum().backward()
        found[f"features {step}"], found[f"input gradient {step}"] = features, images.grad
    with paddle.no_grad():
        found.update({f"map {i}": x for i, x in enumerate(backbone.feature_maps(images))})
    found.update({f"gradient {n}": p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    found.update({f"state {n}": value for n, value in backbone.state_dict().items()})
    return {key: value.numpy() for key, value in found.items()}


def assert_close(one: dict, other: dict, tolerance: float):
    """Equal but for ``tolerance`` of the largest; gradients that are rounding alone, of the largest gradient."""
    assert list(one) == list(other)
    largest = max(np.abs(v).max() for k, v in one.items() if k.startswith("gradient"))
    for key, value in one.items():
        scale = max(np.abs(value).max(), largest * 1e-2 if key.startswith("gradient") else 0)
        assert value.shape == other[key].shape, key
        assert np.abs(value - other[key]).max() <= tolerance * scale, key


@pytest.mark.parametrize("name", ENTRIES)
def test_numbers_names_and_maps_are_those_of_the_other_layout(name):
    """By the convolutions that a CPU takes in float32."""
    first, last = (built(ENTRIES[name], turned=turned) for turned in (False, True))
    assert_close(everything(first), everything(last), 1e-5)


@pytest.mark.parametrize("name", ENTRIES)
def test_so_they_are_in_training(name, in_double):
    """In double precision: norms over four rows, as at the end of a ResNet here, make much of rounding."""
    first, last = (built(ENTRIES[name], turned=turned, training=True) for turned in (False, True))
    assert_close(everything(first), everything(last), 1e-8)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_turned_computes_on_maps_channels_last(name):
    backbone = built(ENTRIES[name], turned=True, training=True)
    seen = []

    def look(layer, inputs):
        seen.append(inputs[0].shape[-1] == (layer._in_channels if isinstance(layer, Conv2D) else layer._num_features))
    for layer in backbone.sublayers():
        assert type(layer) is not nn.BatchNorm2D
        if isinstance(layer, (Conv2D, BatchNorm2D)):
            layer.register_forward_pre_hook(look)
    backbone(paddle.randn([2, 3, 40, 40]))
    assert len(seen) > 5
    assert all(seen)


def test_recomputed_blocks_and_norms_that_span_processes_turn_too():
    """The latter compute in float32."""
    first, last = (built(ENTRIES["ConvMixer"], turned=False, training=True) for _ in range(2))
    for backbone in (first, last):
        synchronise(backbone)
        set_recompute(backbone, True)
    set_data_format(last, "NHWC")
    assert not any(isinstance(layer, BatchNorm2D) for layer in last.sublayers())
    assert_close(everything(first), everything(last), 1e-4)


def losses(config) -> tuple:
    run = build_run(config)
    return run, [float(train_step(run, batch, step)["loss"]) for step, batch in enumerate(run.loader.epoch(0))]


@pytest.mark.parametrize("options", [[CONV_MIXER], [CONV_MLP, BYOL], [CONV_MLP, "model.method={name: moco, "
                                     "queue_size: 16, bn_splits: 2}"]], ids=["simclr", "byol", "moco"])
def test_a_run_has_the_same_losses_and_its_momentum_encoder_turns(tiny, options):
    _, off = losses(tiny(SGD, *options))
    run, on = losses(tiny(SGD, *options, "train.channels_last=true"))
    assert len(on) == 4
    np.testing.assert_allclose(on, off, rtol=1e-5)
    networks = [layer for layer in run.method.sublayers() if hasattr(layer, "data_formats")]
    assert len(networks) == (1 if options == [CONV_MIXER] else 2)
    assert all(network.data_format == "NHWC" for network in networks)


@pytest.mark.parametrize("begins", ["true", "false"])
def test_a_checkpoint_of_one_is_resumed_in_the_other(tiny, tmp_path, begins):
    other = {"true": "false", "false": "true"}[begins]
    common = [SGD, CONV_MLP, BYOL, "schedule.epochs=1"]

    def ended(folder):
        run = build_run(tiny(*common))
        path = sorted((tmp_path / folder / "checkpoints").glob("step_*"))[-1]
        load_arrays(run.method, read_checkpoint(path)[0], str(path))
        return arrays_of(run.method)
    train(tiny(*common, f"output_dir={tmp_path / 'whole'}"))
    train(tiny(*common, f"train.channels_last={begins}", "train.max_steps=2"))
    assert train(tiny(*common, f"train.channels_last={other}"), resume=True)["steps"] == 4
    whole, parts = ended("whole"), ended("run")
    assert list(whole) == list(parts)
    for key in whole:
        np.testing.assert_allclose(parts[key], whole[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_run_says_that_its_backbone_has_nothing_to_turn(tiny, capsys):
    said = "train.channels_last: MlpMixer has no stack of convolutions to turn"
    train(tiny("train.channels_last=true", "train.max_steps=1"))
    assert said in capsys.readouterr().out
    for number, options in enumerate([["train.channels_last=true", CONV_MIXER], []]):
        train(tiny(*options, "train.max_steps=1", f"output_dir={tiny().output_dir}{number}"))
        assert "train.channels_last" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Tensor do not have 'place':UserWarning")
def test_a_compiled_backbone_turns(tiny):
    options = [SGD, CONV_MIXER, "train.compile=true"]
    np.testing.assert_allclose(losses(tiny(*options, "train.channels_last=true"))[1], losses(tiny(*options))[1],
                               rtol=1e-5)


def test_a_turned_network_is_exported_rightly(tmp_path):
    backbone = built(ENTRIES["ConvMixer"], turned=True)
    export_network(backbone, tmp_path / "out", img_size=16)
    images = np.random.default_rng(0).standard_normal([3, 3, 16, 16]).astype("float32")
    wanted = built(ENTRIES["ConvMixer"], turned=False)(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(load_exported(tmp_path / "out")(images), wanted, rtol=1e-4, atol=1e-5)


def test_the_benchmark_tries_it_where_there_is_something_to_turn():
    for name in list_backbones():
        if not name[0].isupper():
            turns = hasattr(BACKBONES.entry(name)[0], "data_formats")
            assert ("train.channels_last" in systems._settings_worth_trying("gpu", name)) == turns, name
    both = systems._settings_worth_trying("gpu", "resnet50")["bf16 and train.channels_last"]
    assert both == ["train.precision=bf16", "train.channels_last=true"]
    assert list(systems._settings_worth_trying("cpu", "resnet50")) == ["train.compile", "train.recompute"]
