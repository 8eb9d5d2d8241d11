"""What every small backbone keeps, whichever families are registered: shapes, maps, gradients, refusals."""
import paddle
import pytest

from passl_mixer.backbones import build_backbone, list_backbones
from passl_mixer.errors import BadInput
from passl_mixer.registry import BACKBONES

NANO = list_backbones("*_nano")


def nano(name, size=32, **options):
    """The backbone for ``size`` px; an option that it does not have is left out."""
    known = BACKBONES.parameters(name)
    options = {key: value for key, value in {"img_size": size, **options}.items() if key in known}
    return build_backbone({"name": name, **options})


def images_of(backbone, size=32, batch=2):
    return paddle.randn([batch, backbone.in_chans, size, size])


def test_there_are_small_backbones():
    assert {"mlp_mixer_nano", "vit_nano", "swin_nano"} <= set(NANO)


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("size", [32, 28])
def test_features_and_maps(name, size):
    try:
        backbone = nano(name, size)
    except BadInput as refusal:
        assert size != 32, "every small backbone takes 32 px"
        pytest.skip(str(refusal))
    assert backbone.img_size in (None, (size, size))
    backbone.eval()
    images = images_of(backbone, size)
    assert list(backbone(images).shape) == [2, backbone.num_features]
    maps = backbone.feature_maps(images)
    assert isinstance(maps, list)
    assert len(maps) == len(backbone.feature_strides) == len(backbone.feature_channels)
    for feature_map, stride, channels in zip(maps, backbone.feature_strides, backbone.feature_channels):
        batch, got, *sides = feature_map.shape
        assert (batch, got) == (2, channels)
        if size == 32 or backbone.img_size is not None:
            assert sides == [size // stride] * 2
        else:  # a size-free family may round up or down
            assert all(abs(side - size / stride) < 1 for side in sides)


@pytest.mark.parametrize("name", NANO)
def test_every_parameter_learns(name):
    paddle.seed(0)
    backbone = nano(name)
    backbone.train()
    features = backbone(images_of(backbone))
    # A mean of LayerNorm outputs has next to no gradient, a random projection has.
    (features * paddle.randn(features.shape)).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, parameter_name
            assert bool(paddle.isfinite(parameter.grad).all()), parameter_name
            assert float(parameter.grad.abs().max()) > 0, parameter_name


@pytest.mark.parametrize("name", NANO)
def test_evaluation_is_deterministic(name):
    backbone = nano(name, drop_path_rate=0.5)
    backbone.eval()
    images = images_of(backbone)
    assert bool((backbone(images) == backbone(images)).all())


@pytest.mark.parametrize("name", NANO)
def test_a_wrong_channel_count_is_refused(name):
    backbone = nano(name)
    with pytest.raises(BadInput, match=f"expected \\[B, {backbone.in_chans}, H, W\\]"):
        backbone(paddle.zeros([1, backbone.in_chans + 1, 32, 32]))
