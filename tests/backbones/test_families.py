"""What every family promises: sizes, gradients, feature maps, refusals."""
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")

SMALL = {
    "MlpMixer": {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_blocks": 2},
    "ConvMLP": {"stem_channels": 8, "num_conv_blocks": 1, "embed_dims": [8, 12], "depths": [1, 2],
                "mlp_ratios": [2, 1.5]},
    "CycleMLP": {"embed_dims": [8, 13], "depths": [1, 2], "mlp_ratios": [2, 1.5]},
    "ResNet": {"depth": 18, "stem": "cifar"},
}


def small(name, **options):
    return build_backbone({"name": name, **SMALL[name], **options})


@pytest.mark.parametrize("name", SMALL)
def test_features_and_gradients(name):
    paddle.seed(0)
    backbone = small(name)
    images = paddle.randn([2, 3, 32, 32])
    features = backbone(images)
    assert features.shape == [2, backbone.num_features]
    # A mean of LayerNorm outputs has next to no gradient, a random projection has.
    (features * paddle.randn(features.shape)).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        if not parameter.stop_gradient:
            assert parameter.grad is not None, parameter_name
            assert float(parameter.grad.abs().max()) > 0, parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_images_of_a_batch_do_not_mix(name):
    backbone = small(name)
    backbone.eval()
    images = paddle.randn([3, 3, 32, 32])
    alone = backbone(images[1:2])
    assert float((backbone(images)[1:2] - alone).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["ConvMLP", "CycleMLP", "ResNet"])
@pytest.mark.parametrize("size", [(28, 36), (33, 47), (64, 32), (7, 5)])
def test_size_free_families_take_any_size(name, size):
    backbone = small(name)
    backbone.eval()
    images = paddle.randn([1, 3, *size])
    assert backbone.img_size is None
    assert backbone(images).shape == [1, backbone.num_features]
    maps = backbone.feature_maps(images)
    assert [m.shape[1] for m in maps] == list(backbone.feature_channels)
    for feature_map, stride in zip(maps, backbone.feature_strides):
        assert all(abs(got - side / stride) <= 1 for got, side in zip(feature_map.shape[2:], size))


@pytest.mark.parametrize("name", ["mlp_mixer_nano", "conv_mlp_nano", "cycle_mlp_nano"])
@pytest.mark.parametrize("size", [28, 32, 36])
def test_nano_variants_take_small_images(name, size):
    options = {"img_size": size} if name == "mlp_mixer_nano" else {}
    backbone = build_backbone({"name": name, **options})
    backbone.eval()
    maps = backbone.feature_maps(paddle.randn([1, 3, size, size]))
    assert maps[-1].shape[2] == -(-size // backbone.feature_strides[-1])


def test_the_mixer_map_averages_to_its_feature_and_keeps_the_grid():
    mixer = small("MlpMixer", img_size=[16, 24])
    mixer.eval()
    images = paddle.randn([2, 3, 16, 24])
    maps = mixer.feature_maps(images)
    assert len(maps) == 1
    assert maps[0].shape == [2, 12, 2, 3]
    assert float((maps[0].mean(axis=[2, 3]) - mixer(images)).abs().max()) < 1e-6


def test_tanh_gelu_is_close_but_another_function():
    paddle.seed(1)
    erf, tanh = small("MlpMixer"), small("MlpMixer", act="gelu_tanh")
    tanh.set_state_dict(erf.state_dict())
    images = paddle.randn([2, 3, 32, 32])
    gap = float((erf(images) - tanh(images)).abs().max())
    assert 0 < gap < 0.02


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", SMALL)
def test_other_channel_counts(name, in_chans):
    backbone = small(name, in_chans=in_chans)
    backbone.eval()
    assert backbone(paddle.randn([1, in_chans, 32, 32])).shape == [1, backbone.num_features]
    with pytest.raises(BadInput, match=f"expected \\[B, {in_chans}, H, W\\]"):
        backbone(paddle.zeros([1, 3, 32, 32]))


def test_an_image_of_another_size_names_both():
    with pytest.raises(BadInput, match=r"28 x 28 pixels.*img_size 32 x 32"):
        small("MlpMixer")(paddle.zeros([1, 3, 28, 28]))


@pytest.mark.parametrize(("name", "options", "words"), [
    ("MlpMixer", {"img_size": 30}, "30 x 30 is not a multiple of patch_size 8"),
    ("MlpMixer", {"img_size": [32, 32, 3]}, "expected one positive integer or"),
    ("MlpMixer", {"mlp_ratio": [4.0]}, "expected a pair"),
    ("MlpMixer", {"mlp_ratio": [0.01, 4.0]}, "no hidden unit"),
    ("MlpMixer", {"num_blocks": 0}, "num_blocks is 0"),
    ("MlpMixer", {"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ("MlpMixer", {"act": "gelu_tan"}, "did you mean 'gelu_tanh'"),
    ("MlpMixer", {"img_size": "32"}, "expected an integer or a list of an integer"),
    ("ConvMLP", {"depths": [1]}, "embed_dims has 2, depths has 1, mlp_ratios has 2"),
    ("ConvMLP", {"stem_stride": 3}, "stem_stride is 3"),
    ("ConvMLP", {"stem_channels": 7}, "stem_channels 7"),
    ("ConvMLP", {"img_size": 32}, "has no option 'img_size'"),
    ("CycleMLP", {"mlp_ratios": [4, 4, 4]}, "mlp_ratios has 3"),
    ("CycleMLP", {"embed_dims": [2, 8]}, "at least 4"),
    ("CycleMLP", {"embed_dims": [], "depths": [], "mlp_ratios": []}, "embed_dims is"),
    ("CycleMLP", {"stem_stride": 8}, "stem_stride is 8"),
    ("ResNet", {"depth": 20}, "depth is 20"),
    ("ResNet", {"stem": "cifar10"}, "did you mean 'cifar'"),
])
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(BadInput, match=words):
        small(name, **options)
