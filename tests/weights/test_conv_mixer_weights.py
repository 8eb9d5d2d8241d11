"""timm's and the official ConvMixer through our backbone: reference outputs, and what is refused."""
import re

import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.weights import convert_state_dict


def official(state):
    """A timm state dict under the official names; two blocks, so the classifier is the layer 2 + 5."""
    def rename(name):
        name = re.sub(r"^blocks\.(\d+)", lambda match: str(int(match.group(1)) + 3), name)
        return re.sub(r"^stem\.", "", re.sub(r"^head\.", "7.", name))
    return {rename(name): value for name, value in state.items()}


def states(golden, source):
    config, state, data = golden("conv_mixer")
    return config, state if source == "timm" else official(state), data


@pytest.mark.parametrize("source", ["timm", "official"])
def test_logits_and_input_gradient(golden, source):
    config, state, data = states(golden, source)
    backbone = build_backbone({"name": "ConvMixer", **config["backbone"]})
    head = build_head({"name": "linear", "num_classes": config["num_classes"]}, in_features=backbone.num_features)
    converted = convert_state_dict(state, family="conv_mixer", source=source)
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


@pytest.mark.parametrize("source", ["timm", "official"])
def test_every_missing_array_is_named_and_counters_are_dropped(golden, source):
    _, state, _ = states(golden, source)
    for name in state:
        with pytest.raises(BadInput, match=re.escape(name)):
            convert_state_dict({key: value for key, value in state.items() if key != name},
                               family="conv_mixer", source=source)
    names = set(convert_state_dict(state, family="conv_mixer", source=source)["backbone"])
    state["stem.2.num_batches_tracked" if source == "timm" else "2.num_batches_tracked"] = numpy.array(7)
    assert set(convert_state_dict(state, family="conv_mixer", source=source)["backbone"]) == names


def test_the_other_source_is_named(golden):
    _, state, _ = golden("conv_mixer")
    with pytest.raises(BadInput, match=r"conv_mixer \(timm\), not of conv_mixer \(official\); .*source='timm'"):
        convert_state_dict(state, family="conv_mixer", source="official")
    with pytest.raises(BadInput, match="pass family='conv_mixer', source='official'"):
        convert_state_dict(official(state), family="conv_mixer", source="timm")


def test_a_network_without_blocks_is_refused(golden):
    _, state, _ = golden("conv_mixer")
    without = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    with pytest.raises(BadInput, match=r"no 'blocks\.0\.0\.fn\.0\.weight'"):
        convert_state_dict(without, family="conv_mixer", source="timm")
