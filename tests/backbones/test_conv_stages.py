"""Hire-MLP and Wave-MLP, whose stem and down-samplings are convolutions: sizes, drop path, refusals."""
import paddle
import pytest
from three_branches import HIRE, WAVE

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath
from passl_mixer.surgery.macs import count_parameters

NETWORKS = {"hire": HIRE, "wave": WAVE, "wave, group norms": {**WAVE, "norms": ["group", "group"]}}


@pytest.fixture(params=NETWORKS)
def small(request):
    return NETWORKS[request.param]


@pytest.mark.parametrize("size", [(28, 36), (33, 47), (7, 5)])
def test_any_size(small, size):
    backbone = build_backbone(small)
    backbone.eval()
    images = paddle.randn([3, 3, *size])
    maps = backbone.feature_maps(images)
    assert backbone.img_size is None
    assert tuple(m.shape[1] for m in maps) == backbone.feature_channels == (8, 12)
    for feature_map, stride in zip(maps, backbone.feature_strides):
        assert all(abs(got - side / stride) <= 1 for got, side in zip(feature_map.shape[2:], size))
    assert float((backbone(images)[1:2] - backbone(images[1:2])).abs().max()) < 1e-5  # images do not mix


@pytest.mark.parametrize("name", ["hire_mlp_nano", "wave_mlp_nano"])
@pytest.mark.parametrize("size", [28, 32, 36])
def test_nano(name, size):
    backbone = build_backbone(name)
    assert 300_000 <= count_parameters(backbone) <= 1_500_000
    maps = backbone.feature_maps(paddle.randn([2, 3, size, size]))
    assert [m.shape[2] for m in maps] == [-(-size // stride) for stride in (2, 4, 8)]


def test_drop_path_rises_linearly_over_all_blocks(small):
    backbone = build_backbone({**small, "drop_path_rate": 0.2})
    rates = [layer.rate for layer in backbone.sublayers() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    backbone.eval()
    images = paddle.randn([2, 3, 32, 32])
    assert (backbone(images).numpy() == backbone(images).numpy()).all()


@pytest.mark.parametrize(("options", "words"), [
    ({"depths": [1]}, "depths has 1"),
    ({"embed_dims": [3, 8]}, "at least 4"),
    ({"embed_dims": [4, 8], "mlp_ratios": [0.1, 1]}, "no hidden unit"),
    ({"stem_stride": 8}, "stem_stride is 8"),
    ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
])
def test_options_that_do_not_fit_either(small, options, words):
    with pytest.raises(BadInput, match=words):
        build_backbone({**small, **options})


def test_images_of_other_channels_are_refused(small):
    with pytest.raises(BadInput, match=r"expected \[B, 3, H, W\]"):
        build_backbone(small)(paddle.zeros([1, 4, 32, 32]))
