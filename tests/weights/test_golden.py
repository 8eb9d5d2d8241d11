"""Reference state dicts give the reference's logits and input gradients through our backbones."""
import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.heads import build_head
from passl_mixer.weights import convert_state_dict

CLASSES = {"mlp_mixer": "MlpMixer", "conv_mlp": "ConvMLP", "cycle_mlp": "CycleMLP", "vip": "ViP", "as_mlp": "ASMLP"}


def tensors(arrays):
    return {name: paddle.to_tensor(value) for name, value in arrays.items()}


def filled(family, golden):
    config, state, data = golden(family)
    backbone = build_backbone({"name": CLASSES[family], **config["backbone"]})
    head = build_head({"name": "linear", "num_classes": config["num_classes"]},
                      in_features=backbone.num_features)
    converted = convert_state_dict(state, family=config["family"], source=config["source"])
    for layer, part in ((backbone, "backbone"), (head, "head")):
        layer.eval()
        assert set(converted[part]) == set(layer.state_dict())
        for name, tensor in layer.state_dict().items():
            assert converted[part][name].shape == tuple(tensor.shape), name
        layer.set_state_dict(tensors(converted[part]))
    return backbone, head, data


@pytest.mark.parametrize("family", CLASSES)
def test_logits_and_input_gradient(family, golden):
    backbone, head, data = filled(family, golden)
    images = paddle.to_tensor(data["input"], stop_gradient=False)
    logits = head(backbone(images))
    (logits * paddle.to_tensor(data["projection"])).sum().backward()
    for ours, reference in ((logits, data["logits"]), (images.grad, data["input_grad"])):
        assert numpy.abs(ours.numpy() - reference).max() <= 1e-5 * numpy.abs(reference).max()


@pytest.mark.parametrize("family", CLASSES)
def test_the_pooled_feature_comes_from_the_last_map(family, golden):
    backbone, _, data = filled(family, golden)
    images = paddle.to_tensor(data["input"])
    last = backbone.feature_maps(images)[-1].flatten(2).transpose([0, 2, 1])
    if family != "mlp_mixer":  # the Mixer's map is normalised already
        last = backbone.norm(last)
    numpy.testing.assert_allclose(last.mean(axis=1).numpy(), backbone(images).numpy(), rtol=1e-5, atol=1e-6)
