"""Our backbones in the shapes PASSL takes, frozen stages, pretrained files of a host: all that needs no PASSL."""
import importlib
import pickle
import sys

import numpy
import paddle
import pytest
from helpers.arrays import assert_same, differing, state_of

from passl_mixer import build_backbone, build_head, list_backbones
from passl_mixer.errors import BadInput
from passl_mixer.integrations.passl import register
from passl_mixer.integrations.passl_layers import HostBackbone, HostHead, frozen_parts, num_stages
from passl_mixer.integrations.passl_shim import fluid_in_place, fluid_modules

# every family, small
NETS = [*list_backbones("*_nano"), "resnet18"]
SIDE = 32


def images(count=2):
    return paddle.to_tensor(numpy.random.default_rng(0).standard_normal((count, 3, SIDE, SIDE)), "float32")


@pytest.mark.parametrize("name", NETS)
def test_the_three_outputs_hold_the_same_features(name):
    net = build_backbone({"name": name, "pool": "mean"} if name == "vit_nano" else name)
    net.eval()
    with paddle.no_grad():
        pooled, spread, flat = (HostBackbone(net, output=output)(images()) for output in ("pooled", "map", "vector"))
    assert flat.shape == [2, net.num_features]
    assert pooled.shape == [2, net.num_features, 1, 1]
    assert spread.shape[:2] == flat.shape
    numpy.testing.assert_array_equal(pooled.numpy()[:, :, 0, 0], flat.numpy())
    numpy.testing.assert_allclose(spread.numpy().mean((2, 3)), flat.numpy(), atol=2e-5)


@pytest.mark.parametrize("name", NETS)
def test_frozen_parts_are_all_that_comes_before(name):
    """Everything frozen or not; after each stage more of it; and what is left changes nothing before it."""
    net = build_backbone(name)
    total, sizes = num_stages(net), []
    for count in range(total + 1):
        parts = frozen_parts(net, count)
        owned = [[part] if isinstance(part, paddle.Tensor) else part.parameters() for part in parts]
        sizes.append(len({id(parameter) for parameters in owned for parameter in parameters}))
    assert 0 < sizes[0] < sizes[1]
    assert sorted(set(sizes)) == sizes
    assert sizes[-1] == len(net.parameters())
    if not hasattr(net, "stages") or total < 2:
        return
    net.eval()
    with paddle.no_grad():          # with gradients a BatchNorm is computed in another way until it is frozen
        before = [m.numpy() for m in net.feature_maps(images())]
    frozen = HostBackbone(net, frozen_stages=1)
    for parameter in frozen.net.parameters():
        if parameter.trainable:
            parameter.set_value(parameter + 1.0)
    with paddle.no_grad():
        after = [m.numpy() for m in net.feature_maps(images())]
    numpy.testing.assert_array_equal(after[0], before[0])
    assert not numpy.array_equal(after[1], before[1])


def test_frozen_layers_do_not_learn_and_keep_their_statistics():
    backbone = HostBackbone(build_backbone("conv_mlp_nano"), frozen_stages=0)      # its stem has the BatchNorms
    model = paddle.nn.Sequential(backbone, paddle.nn.Flatten())
    before = state_of(model)
    model.train()
    optimiser = paddle.optimizer.SGD(0.1, parameters=model.parameters(), weight_decay=0.1)
    paddle.square(model(images())).sum().backward()
    optimiser.step()
    changed = differing(before, state_of(model))
    stem = {name for name in before if name.startswith(("0.net.tokenizer", "0.net.conv_blocks", "0.net.downsample"))}
    assert any(name.endswith("._mean") for name in stem)
    assert not changed & stem
    assert any(name.startswith("0.net.stages") for name in changed)


@pytest.mark.parametrize(("options", "words"), [
    *(({"frozen_stages": stages}, words) for stages, words in
      ((5, "up to 4, the stages"), (-2, "-1 .none."), ("half", "or all"), (True, "True"))),
    ({"output": "flat"}, "output is 'flat', expected one of pooled, map, vector")])
def test_impossible_stages_and_outputs_are_refused(options, words):
    with pytest.raises(BadInput, match=words):
        HostBackbone(build_backbone("mlp_mixer_nano"), **options)


def test_a_head_has_the_loss_and_accuracies_of_passl():
    head = HostHead(build_head({"name": "MlpMixerClsHead", "in_channels": 8, "num_classes": 10}))
    assert head(paddle.ones([2, 8, 3, 3])).shape == [2, 10]
    scores = numpy.random.default_rng(0).standard_normal((6, 10)).astype("float32")
    labels = numpy.array([0, 1, 2, 3, 4, 5])
    outputs = head.loss(paddle.to_tensor(scores), paddle.to_tensor(labels))
    chances = numpy.exp(scores) / numpy.exp(scores).sum(1, keepdims=True)
    hits = [[label in numpy.argsort(-row)[:k] for row, label in zip(scores, labels)] for k in (1, 5)]
    assert float(outputs["loss"]) == pytest.approx(-numpy.log(chances[numpy.arange(6), labels]).mean(), rel=1e-5)
    assert [float(outputs["acc1"]), float(outputs["acc5"])] == pytest.approx([100 * numpy.mean(h) for h in hits])


def saved_by_passl(path, prefixes):
    """A pickle as PASSL's CheckpointHook writes it, with a Mixer under every prefix; those Mixers' arrays."""
    states = {}
    for prefix in prefixes:
        net = build_backbone("mlp_mixer_nano")
        states[prefix] = state_of(net)
    flat = {prefix + name: value for prefix, state in states.items() for name, value in state.items()}
    with open(path, "wb") as file:
        pickle.dump({"epoch": 1, "state_dict": {**flat, "queue": numpy.zeros((4, 4), "float32")}}, file)
    return states


@pytest.mark.parametrize(("prefixes", "taken"), [
    (["encoder_q.0.net.", "encoder_k.0.net.", "backbone.net."], "backbone.net."), (["anything."], "anything.")])
def test_a_backbone_inside_a_saved_model_is_found(tmp_path, prefixes, taken):
    states = saved_by_passl(tmp_path / "epoch_1.pdparams", prefixes)
    net = build_backbone({"name": "mlp_mixer_nano", "pretrained": str(tmp_path / "epoch_1.pdparams")})
    assert_same(state_of(net), states[taken])


def test_several_backbones_of_equal_right_are_refused(tmp_path):
    saved_by_passl(tmp_path / "two.pdparams", ["left.", "right."])
    with pytest.raises(BadInput, match=r"two\.pdparams"):
        build_backbone({"name": "mlp_mixer_nano", "pretrained": str(tmp_path / "two.pdparams")})


def test_fluid_is_there_inside_and_gone_outside():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("paddle.fluid")
    with fluid_in_place(fluid_modules()):
        layers = importlib.import_module("paddle.fluid.layers")
        convert_dtype = importlib.import_module("paddle.fluid.data_feeder").convert_dtype
        rows = layers.l2_normalize(paddle.to_tensor([[3.0, 4.0]]), -1)
        numpy.testing.assert_allclose(rows.numpy(), [[0.6, 0.8]], rtol=1e-6)
        assert layers.squeeze(paddle.ones([2, 3, 1, 1]), axes=[]).shape == [2, 3]
        assert [part.shape for part in layers.split(paddle.ones([4, 3]), num_or_sections=2, dim=0)] == [[2, 3]] * 2
        assert float(layers.accuracy(paddle.to_tensor([[0.9, 0.1], [0.8, 0.2]]), paddle.to_tensor([[0], [1]]))) == 0.5
        assert layers.fill_constant(shape=[2], dtype="float32", value=0.5).numpy().tolist() == [0.5, 0.5]
        assert convert_dtype(paddle.ones([1]).dtype) == "float32"
    assert not hasattr(paddle, "fluid")
    assert not [name for name in sys.modules if name.startswith("paddle.fluid")]


def test_another_version_is_refused(tmp_path, monkeypatch):
    (tmp_path / "passl").mkdir()
    (tmp_path / "passl" / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "passl", raising=False)
    info = tmp_path / "passl-1.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: passl\nVersion: 1.1.0\n")
    with pytest.raises(BadInput, match=r'^passl 1\.1\.0 is installed, expected 0\.0\.4; pip install "passl_mixer'):
        register()
