"""Reference state dicts: their outputs through our backbones, the layout of their maps, and what is refused."""
import re

import numpy
import paddle
import pytest
from helpers.gradients import assert_close

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.surgery.macs import shapes_only
from passl_mixer.weights import convert_state_dict
from passl_mixer.weights.cycle_mlp import published_offset
from passl_mixer.weights.vip import rows

CLASSES = {"mlp_mixer": "MlpMixer", "conv_mlp": "ConvMLP", "cycle_mlp": "CycleMLP", "vip": "ViP", "as_mlp": "ASMLP",
           "resmlp": "ResMLP", "gmlp": "GMLP", "conv_mixer": "ConvMixer"}
CASES = [("mlp_mixer", "timm"), ("conv_mlp", "official"), ("cycle_mlp", "official"), ("vip", "official"),
         ("as_mlp", "official"), ("resmlp", "timm"), ("resmlp", "official"), ("gmlp", "timm"), ("conv_mixer", "timm"),
         ("conv_mixer", "official")]


def turned(weight):
    """A linear map of PyTorch, or a 1 x 1 convolution, as a linear map of Paddle."""
    return weight.reshape(weight.shape[:2]).T


def kept(weight):
    return weight


# Square maps, which a forgotten transpose would leave unnoticed: theirs, ours, how they change.
SQUARES = {
    ("cycle_mlp", "official"): [
        *((f"network.0.0.attn.{theirs}.weight", f"stages.0.0.mixer.{ours}.weight", turned)
          for theirs, ours in (("mlp_c", "channel"), ("sfc_h", "along_width")))],
    ("as_mlp", "official"): [
        *((f"layers.2.blocks.0.axial_shift.{theirs}.weight", f"stages.2.0.mixer.{ours}.weight", turned)
          for theirs, ours in (("conv1", "enter"), ("conv2_1", "along_width"), ("conv2_2", "along_height"),
                               ("conv3", "proj"))),
        ("layers.1.downsample.reduction.weight", "downsamples.1.reduction.weight", turned)],
    ("vip", "official"): [
        *((f"network.2.0.attn.{theirs}.weight", f"stages.1.0.mixer.{ours}.weight", turned)
          for theirs, ours in (("mlp_c", "channel"), ("mlp_h", "along_height"), ("mlp_w", "along_width"),
                               ("proj", "proj")))],
    ("resmlp", "timm"): [("blocks.1.linear_tokens.weight", "blocks.1.token_mixing.weight", kept),
                         ("blocks.1.mlp_channels.fc1.weight", "blocks.1.mlp.fc1.weight", turned)],
    ("resmlp", "official"): [("blocks.1.attn.weight", "blocks.1.token_mixing.weight", kept),
                             ("blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc1.weight", turned)],
    ("gmlp", "timm"): [("blocks.1.mlp_channels.gate.proj.weight", "blocks.1.gate.token_mixing.weight", kept),
                       ("blocks.1.mlp_channels.fc1.weight", "blocks.1.fc1.weight", turned)],
}


def convert(state, family, source):
    return convert_state_dict(state, family=family, source=source)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_logits_and_input_gradient(golden, family, source):
    config, state, data = golden(family, source)
    backbone = build_backbone({"name": CLASSES[family], **config["backbone"]})
    head = build_head({"name": "linear", "num_classes": config["num_classes"]}, in_features=backbone.num_features)
    converted = convert(state, family, source)
    for layer, part in ((backbone, "backbone"), (head, "head")):
        layer.eval()
        assert {name: list(value.shape) for name, value in converted[part].items()} \
            == {name: tensor.shape for name, tensor in layer.state_dict().items()}
        layer.set_state_dict({name: paddle.to_tensor(value) for name, value in converted[part].items()})
    images = paddle.to_tensor(data["input"], stop_gradient=False)
    logits = head(backbone(images))
    (logits * paddle.to_tensor(data["projection"])).sum().backward()
    assert_close([logits, images.grad], [data["logits"], data["input_grad"]], 1e-5)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_square_maps_are_turned_or_kept(golden, family, source):
    state = golden(family, source)[1]
    converted = convert(state, family, source)
    classifier = "7.weight" if (family, source) == ("conv_mixer", "official") else "head.weight"
    numpy.testing.assert_array_equal(converted["head"]["fc.weight"], state[classifier].T)
    for theirs, ours, change in SQUARES.get((family, source), []):
        weight = state[theirs]
        if change is kept:
            assert weight.shape[0] == weight.shape[1]
            assert numpy.abs(weight - weight.T).max() > 0.1 * numpy.abs(weight).max()
        numpy.testing.assert_array_equal(converted["backbone"][ours], change(weight))


@pytest.mark.parametrize(("family", "source"), CASES)
def test_every_missing_array_is_named(golden, family, source):
    state = golden(family, source)[1]
    for name in state:
        with pytest.raises(BadInput, match=re.escape(name)):
            convert({key: value for key, value in state.items() if key != name}, family, source)


@pytest.mark.parametrize(("family", "source"), [case for case in CASES if case[0] != "conv_mixer"])
def test_all_faults_are_listed_at_once(golden, family, source):
    state = golden(family, source)[1]
    shift, scale = ("norm.beta", "norm.alpha") if family == "resmlp" else ("norm.bias", "norm.weight")
    del state[shift], state["head.bias"]
    state["head.extra"] = numpy.zeros(3, numpy.float32)
    state[scale] = state[scale][..., :-1]
    with pytest.raises(BadInput) as caught:
        convert(state, family, source)
    for words in (f"missing: {shift}, head.bias", "unexpected: head.extra", f"wrongly shaped: {scale} is ["):
        assert words in str(caught.value)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_a_state_dict_of_another_family_or_source_is_named(golden, family, source):
    state = golden(family, source)[1]
    for other in CASES:
        if other != (family, source):
            words = rf"state dict of {family} \({source}\), not of {other[0]} \({other[1]}\); " \
                    f"pass family='{family}', source='{source}'"
            with pytest.raises(BadInput, match=words):
                convert(state, *other)


@pytest.mark.parametrize(("family", "source", "counter"), [
    ("conv_mlp", "official", "tokenizer.block.1."), ("conv_mixer", "timm", "stem.2."),
    ("conv_mixer", "official", "2.")])
def test_batch_counters_are_dropped(golden, family, source, counter):
    state = golden(family, source)[1]
    names = set(convert(state, family, source)["backbone"])
    state[f"{counter}num_batches_tracked"] = numpy.array(7)
    assert set(convert(state, family, source)["backbone"]) == names


def without_blocks(state):
    return {name: value for name, value in state.items() if not name.startswith("blocks.")}


def with_a_norm_per_stage(state):
    """As the detection variant has them."""
    return {**state, "norm0.weight": numpy.ones(10, numpy.float32)}


def beginning_with_a_down_sampling(state):
    return {**state, "network.0.proj.weight": state["network.1.proj.weight"]}


def with_another_offset(state):
    name = "network.2.1.attn.sfc_w.offset"
    return {**state, name: numpy.roll(state[name], 2)}


@pytest.mark.parametrize(("family", "source", "change", "words"), [
    ("conv_mixer", "timm", without_blocks, r"no 'blocks\.0\.0\.fn\.0\.weight'"),
    ("as_mlp", "official", with_a_norm_per_stage, r"unexpected: norm0\.weight"),
    ("vip", "official", beginning_with_a_down_sampling, r"network\.0 is a down-sampling"),
    ("cycle_mlp", "official", with_another_offset,
     r"network\.2\.1\.attn\.sfc_w\.offset is not the published pattern"),
    ("mlp_mixer", "timm", lambda state: {}, "empty"),
    ("mlp_mixer", "timm", lambda state: {"model": {}}, "expected a NumPy array"),
    ("mlp_mixer", "timm", lambda state: {"fc.weight": numpy.zeros((2, 2))}, r"stem\.proj\.weight"),
    ("mlp_mixr", "timm", None, "did you mean 'mlp_mixer'"), ("conv_mlp", "oficial", None, "did you mean 'official'"),
    ("mlp_mixer", "keras", None, "known: google, paddlevit, passl, timm"),
])
def test_what_is_no_such_state_dict_is_refused(golden, family, source, change, words):
    with pytest.raises(BadInput, match=words):
        convert(change(golden(family, source)[1]) if change else {}, family, source)


def test_published_offset_pattern():
    offset = published_offset(5, moving=1).reshape(5, 2)
    assert offset[:, 0].tolist() == [0, 0, 0, 0, 0]
    assert offset[:, 1].tolist() == [0, 1, -1, 0, 1]


# Official index of the stages, and of the down-sampling: the fact sheet of the released checkpoints.
LAYOUTS = {"vip_s14": ((0, 1, 2, 3), None), "vip_s7": ((0, 2, 3, 4), 1), "vip_m7": ((0, 1, 3, 4), 2),
           "vip_l7": ((0, 2, 3, 4), 1)}


def official_shapes(name):
    """Official names and shapes of a variant with one block a stage, and ours."""
    stages, down = LAYOUTS[name]
    words = {"mixer.channel": "attn.mlp_c", "mixer.along_height": "attn.mlp_h", "mixer.along_width": "attn.mlp_w",
             "mixer.reweight1": "attn.reweight.fc1", "mixer.reweight2": "attn.reweight.fc2",
             "mixer.proj": "attn.proj"}
    with shapes_only():
        backbone = build_backbone({"name": name, "depths": [1, 1, 1, 1]})
        ours = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    shapes = {"head.weight": (1000, backbone.num_features), "head.bias": (1000,)}
    for key, shape in ours.items():
        parts = key.split(".")
        if parts[0] == "stem":
            key = key.replace("stem", "patch_embed.proj")
        elif parts[0] == "downsamples":
            key = f"network.{down}.proj.{parts[-1]}"
        elif parts[0] == "stages":
            key = ".".join(["network", str(stages[int(parts[1])]), *parts[2:]])
            for our_word, word in words.items():
                key = key.replace(our_word, word)
        shapes[key] = shape[::-1] if len(shape) == 2 else shape
    return shapes, ours


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_names_of_every_variant(name):
    shapes, ours = official_shapes(name)
    # Only shapes are read: a broadcast zero takes no memory.
    arrays = {key: numpy.broadcast_to(numpy.float32(0), shape) for key, shape in shapes.items()}
    found = rows(arrays)
    assert {row.theirs: row.shape for row in found} == shapes
    assert {row.ours: row.shape[::-1] if row.transpose else row.shape for row in found
            if not row.ours.startswith("head.")} == ours
