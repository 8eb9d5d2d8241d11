"""timm's and the official ResMLP and timm's gMLP through our backbones: reference outputs, and what is refused."""
import re

import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.weights import convert_state_dict

CASES = [("resmlp", "timm"), ("resmlp", "official"), ("gmlp", "timm")]
CLASSES = {"resmlp": "ResMLP", "gmlp": "GMLP"}
OFFICIAL = {"stem.": "patch_embed.", "linear_tokens": "attn", "mlp_channels": "mlp", "ls1": "gamma_1", "ls2": "gamma_2"}


def official(state):
    """A timm ResMLP under the official names and in the official layout."""
    def rename(name):
        return re.sub("|".join(map(re.escape, OFFICIAL)), lambda match: OFFICIAL[match.group()], name)
    return {rename(name): value.ravel() if name.endswith(("alpha", "beta")) else value
            for name, value in state.items()}


def states(golden, family, source):
    config, state, data = golden(family)
    return config, official(state) if source == "official" else state, data


@pytest.mark.parametrize(("family", "source"), CASES)
def test_logits_and_input_gradient(golden, family, source):
    config, state, data = states(golden, family, source)
    backbone = build_backbone({"name": CLASSES[family], **config["backbone"]})
    head = build_head({"name": "linear", "num_classes": config["num_classes"]}, in_features=backbone.num_features)
    converted = convert_state_dict(state, family=family, source=source)
    for layer, part in ((backbone, "backbone"), (head, "head")):
        layer.eval()
        assert {name: list(value.shape) for name, value in converted[part].items()} \
            == {name: tensor.shape for name, tensor in layer.state_dict().items()}
        layer.set_state_dict({name: paddle.to_tensor(value) for name, value in converted[part].items()})
    images = paddle.to_tensor(data["input"], stop_gradient=False)
    logits = head(backbone(images))
    (logits * paddle.to_tensor(data["projection"])).sum().backward()
    for ours, reference in ((logits, data["logits"]), (images.grad, data["input_grad"])):
        assert numpy.abs(ours.numpy() - reference).max() <= 1e-5 * numpy.abs(reference).max()


@pytest.mark.parametrize(("family", "source"), CASES)
def test_square_token_weights_stay_and_channel_weights_are_transposed(golden, family, source):
    _, state, _ = states(golden, family, source)
    ours = convert_state_dict(state, family=family, source=source)["backbone"]
    token, kept, fc1, channel = {
        ("resmlp", "timm"): ("linear_tokens", "token_mixing", "mlp_channels.fc1", "mlp.fc1"),
        ("resmlp", "official"): ("attn", "token_mixing", "mlp.fc1", "mlp.fc1"),
        ("gmlp", "timm"): ("mlp_channels.gate.proj", "gate.token_mixing", "mlp_channels.fc1", "fc1"),
    }[family, source]
    weight = state[f"blocks.1.{token}.weight"]
    assert weight.shape[0] == weight.shape[1]
    assert numpy.abs(weight - weight.T).max() > 0.1 * numpy.abs(weight).max()
    numpy.testing.assert_array_equal(ours[f"blocks.1.{kept}.weight"], weight)
    numpy.testing.assert_array_equal(ours[f"blocks.1.{channel}.weight"], state[f"blocks.1.{fc1}.weight"].T)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_every_missing_array_is_named(golden, family, source):
    _, state, _ = states(golden, family, source)
    for name in state:
        with pytest.raises(BadInput, match=re.escape(name)):
            convert_state_dict({key: value for key, value in state.items() if key != name},
                               family=family, source=source)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_all_faults_are_listed_at_once(golden, family, source):
    _, state, _ = states(golden, family, source)
    last = "norm.beta" if family == "resmlp" else "norm.bias"
    state.pop("head.bias")
    state["blocks.0.extra"] = numpy.zeros(3, numpy.float32)
    state[last] = state[last][..., :-1]
    with pytest.raises(BadInput) as caught:
        convert_state_dict(state, family=family, source=source)
    for words in ("missing: head.bias", "unexpected: blocks.0.extra", f"wrongly shaped: {last} is ["):
        assert words in str(caught.value)


@pytest.mark.parametrize(("family", "source"), CASES)
def test_a_state_dict_of_another_family_or_source_is_named(golden, family, source):
    _, state, _ = states(golden, family, source)
    for other in [case for case in [*CASES, ("mlp_mixer", "timm")] if case != (family, source)]:
        with pytest.raises(BadInput, match=f"pass family='{family}', source='{source}'"):
            convert_state_dict(state, family=other[0], source=other[1])
