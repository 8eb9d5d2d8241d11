"""What PASSL's files need of the backbone and the views: its ResNets' stems and starts, square and bicubic crops."""
import numpy as np
import paddle
import pytest

from passl_mixer import build_backbone
from passl_mixer.data import build_views, rng, sampling, transforms
from passl_mixer.errors import BadInput


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_init_residual_starts_every_block_as_its_shortcut(depth):
    paddle.seed(0)
    network = build_backbone({"name": "ResNet", "depth": depth, "zero_init_residual": True})
    network.eval()
    x = paddle.rand([1, network.feature_channels[0], 6, 6])
    block = network.stages[0][1]                # no projection on its shortcut
    np.testing.assert_array_equal(block(x).numpy(), x.numpy())
    plain = build_backbone({"name": "ResNet", "depth": depth})
    plain.eval()
    assert np.abs(plain.stages[0][1](x).numpy() - x.numpy()).max() > 1e-3


def test_a_stem_without_pool_halves_the_strides():
    network = build_backbone({"name": "resnet18", "stem": "no_pool"})
    network.eval()
    maps = network.feature_maps(paddle.rand([1, 3, 64, 64]))
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4]
    assert network.feature_strides == (2, 4, 8, 16)
    assert network.conv1.weight.shape == [64, 3, 7, 7]


def test_square_crops_are_square_and_fall_back_to_a_square():
    boxes = np.array([sampling.crop_box(60, 90, 0.3, rng(0, 0, i), 1.0) for i in range(300)])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert sampling.crop_box(10, 100, 1.0, rng(0, 0, 0), 1.0) == (0, 45, 10, 10)


def test_inception_interpolates_as_asked():
    image = rng(5, 0, 0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for name in ("bilinear", "bicubic"):
        recipe = build_views({"name": "inception", "img_size": 20, "crop_min": 1.0, "flip_p": 0.0, "crop_ratio": 1.0,
                              "interpolation": name})
        expected = transforms.resized_crop(image, (0, 0, 24, 24), 20, name)
        np.testing.assert_array_equal(recipe(image, rng(0, 0, 0))[0], expected)


@pytest.mark.parametrize(("option", "words"), [({"interpolation": "cubic"}, "did you mean 'bicubic'"),
                                               ({"crop_ratio": 0.5}, "expected 1 or more")])
def test_bad_options_name_the_key(option, words):
    with pytest.raises(BadInput, match=words):
        build_views({"name": "inception", **option})
