"""Resized token mixing: against tiles, against interpolated token maps, and what cannot be resized."""
import numpy as np
import paddle
import pytest
from helpers.backbones import random_parameters
from helpers.runs import code_of, run_code

import passl_mixer
from passl_mixer import build_backbone, resize_tokens
from passl_mixer.backbones.token_maps import TOKEN_ARRAYS, adapt_token_arrays, interpolation, resampling, row_major
from passl_mixer.errors import BadInput

SMALL = {"img_size": [8, 12], "patch_size": 4, "embed_dim": 6, "num_blocks": 2}
FAMILIES = list(TOKEN_ARRAYS)


def drawn(name, **options):
    """A small backbone whose every parameter is random, biases and norms too."""
    backbone = build_backbone({"name": name, **SMALL, **options})
    backbone.eval()
    return random_parameters(backbone, 3, 0.0, 0.5)


def token_mixing(backbone, x_bsc):
    """The token-mixing part of block 1 alone."""
    block = backbone.blocks[1]
    if hasattr(block, "gate"):
        return block.gate.token_mixing(x_bsc).numpy()
    return (block.token_mlp if hasattr(block, "token_mlp") else block.token_mixing)(x_bsc).numpy()


def arrays_of(backbone):
    return {name: p.numpy() for name, p in backbone.named_parameters()}


@pytest.mark.parametrize("name", FAMILIES)
def test_in_blocks_token_mixing_is_the_small_one_on_every_tile(name):
    old = drawn(name)
    new = resize_tokens(old, [16, 24], scheme="blocks")
    image = paddle.randn([2, 4, 6, 5])                                   # [B, h', w', C], tiles of 2 x 3 tokens
    mixed = token_mixing(new, image.reshape([2, 24, 5])).reshape([2, 4, 6, 5])
    for top in (0, 2):
        for left in (0, 3):
            tile = image[:, top:top + 2, left:left + 3].reshape([2, 6, 5])
            want = token_mixing(old, tile).reshape([2, 2, 3, 5])
            np.testing.assert_allclose(mixed[:, top:top + 2, left:left + 3], want, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_blocks_the_whole_map_is_that_of_the_tiles(name):
    old = drawn(name)
    new = resize_tokens(old, [24, 36], scheme="blocks")
    images = paddle.randn([1, 3, 24, 36])
    maps = new.feature_maps(images)[0].numpy()
    want = old.feature_maps(images[:, :, 8:16, 24:36])[0].numpy()
    np.testing.assert_allclose(maps[:, :, 2:4, 6:9], want, atol=1e-4)


def test_tiles_are_counted_row_by_row_within_the_image():
    assert row_major((1, 2), 2).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert row_major((2, 1), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_size_changes_nothing(name):
    old = drawn(name)
    for scheme in ("interpolate", "blocks"):
        new = resize_tokens(old, [8, 12], scheme=scheme)
        for parameter_name, value in arrays_of(old).items():
            np.testing.assert_array_equal(arrays_of(new)[parameter_name], value)


@pytest.mark.parametrize("size", [[12, 12], [16, 28], [20, 24]])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_interpolated_token_map_is_mixed_like_the_map(name, size):
    old = drawn(name)
    new = resize_tokens(old, size)
    assert new(paddle.randn([1, 3, *size])).shape == [1, 6]
    grow = resampling(old.grid, new.grid).astype("float32")
    tokens = np.random.default_rng(0).normal(size=[2, 6, 5]).astype("float32")
    np.testing.assert_allclose(token_mixing(new, paddle.to_tensor(grow @ tokens)),
                               grow @ token_mixing(old, paddle.to_tensor(tokens)), atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back_is_the_same_network(name):
    old = drawn(name)
    back = resize_tokens(resize_tokens(old, [16, 20]), [8, 12])
    for parameter_name, value in arrays_of(old).items():
        np.testing.assert_allclose(arrays_of(back)[parameter_name], value, atol=1e-5)


@pytest.mark.parametrize("size", [[8, 8], [12, 20], [4, 24], [32, 48]])
def test_a_local_average_keeps_constants(size):
    mixer = drawn("ResMLP")
    average = np.kron(*(np.maximum(0, 1.5 - abs(np.subtract.outer(range(n), range(n)))) for n in (2, 3)))
    mixer.blocks[1].token_mixing.weight.set_value((average / average.sum(1, keepdims=True)).astype("float32"))
    mixer.blocks[1].token_mixing.bias.set_value(paddle.zeros([6]))
    new = resize_tokens(mixer, size)
    ones = paddle.ones([1, size[0] * size[1] // 16, 1])
    np.testing.assert_allclose(token_mixing(new, ones), ones.numpy(), atol=1e-5)


def test_interpolation_by_hand():
    # at 1.25 of 4 samples: distances 1.25, 0.25, 0.75, 1.75; at -0.25 the two samples outside repeat the first
    np.testing.assert_allclose(interpolation(4, 8)[3], [-9 / 128, 111 / 128, 29 / 128, -3 / 128])
    np.testing.assert_allclose(interpolation(4, 8)[0], [(29 + 111 - 3) / 128, -9 / 128, 0, 0])
    np.testing.assert_array_equal(interpolation(5, 5), np.eye(5))
    place = (np.arange(21) + 0.5) * 9 / 21 - 0.5
    inside = (place > 1) & (place < 7)                       # Keys' kernel is exact on parabolas, away from the edge
    np.testing.assert_allclose((interpolation(9, 21) @ np.arange(9) ** 2)[inside], place[inside] ** 2)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (2, 3), (7, 8), (7, 14), (14, 15), (14, 24), (16, 17), (32, 64)])
def test_undoing_an_interpolation_is_well_conditioned(old, new):
    undo = np.linalg.pinv(interpolation(old, new))
    np.testing.assert_allclose(undo @ interpolation(old, new), np.eye(old), atol=1e-12)
    np.testing.assert_allclose(undo.sum(axis=1), 1)
    assert np.abs(undo).sum(axis=1).max() < 4               # how far a bounded map can grow


def test_what_is_not_token_mixing_is_copied_and_the_original_kept():
    old = drawn("MlpMixer")
    old.blocks[0].token_mlp.fc1.weight.stop_gradient = True
    before = arrays_of(old)
    new = resize_tokens(old, 16)
    assert (new.img_size, new.grid, old.img_size, old.grid) == ((16, 16), (4, 4), (8, 12), (2, 3))
    assert type(new) is type(old)
    assert not new.training
    assert new.blocks[0].token_mlp.fc1.weight.stop_gradient
    with paddle.no_grad():
        new.stem.weight.set_value(new.stem.weight * 2)
    for name, value in arrays_of(old).items():
        np.testing.assert_array_equal(value, before[name])
    new.train()
    new(paddle.randn([2, 3, 16, 16])).square().sum().backward()
    assert float(new.blocks[1].token_mlp.fc2.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_adapt_to_a_backbone_of_another_size(name):
    old = drawn(name, img_size=8)
    new = build_backbone({"name": name, **SMALL, "img_size": [12, 20]})
    new.set_state_dict({k: paddle.to_tensor(v) for k, v in adapt_token_arrays(arrays_of(old), new).items()})
    images = paddle.randn([1, 3, 12, 20])
    new.eval()
    np.testing.assert_allclose(new(images).numpy(), resize_tokens(old, [12, 20])(images).numpy(), atol=1e-5)
    same = adapt_token_arrays(arrays_of(old), old)
    assert all(np.array_equal(same[k], v) for k, v in arrays_of(old).items())


def test_weights_adapt_in_blocks_where_the_hidden_width_says_so():
    old = drawn("MlpMixer", img_size=8)
    new = build_backbone({"name": "MlpMixer", **SMALL, "img_size": 24, "token_hidden": 9 * 3})
    adapted = adapt_token_arrays(arrays_of(old), new)
    want = arrays_of(resize_tokens(old, 24, scheme="blocks"))
    assert all(np.array_equal(adapted[k], want[k]) for k in want)
    assert {k: list(v.shape) for k, v in want.items()} == {k: v.shape for k, v in new.named_parameters()}


def test_weights_that_need_not_be_adapted_pass():
    arrays = {"norm.weight": np.ones(4)}
    cycle = build_backbone("cycle_mlp_nano")
    assert adapt_token_arrays(arrays, cycle) == arrays
    mixer = drawn("MlpMixer")
    with pytest.raises(BadInput, match="no square grid; give from_size"):
        adapt_token_arrays(arrays_of(mixer), drawn("MlpMixer", img_size=8))
    with pytest.raises(BadInput, match="mix 6 tokens, an image of 8 x 8 pixels has 4 patches of 4"):
        adapt_token_arrays(arrays_of(mixer), mixer, from_size=8)
    turned = adapt_token_arrays(arrays_of(mixer), drawn("MlpMixer", img_size=[12, 8]), from_size=[8, 12])
    assert not np.allclose(turned["blocks.0.token_mlp.fc2.bias"], arrays_of(mixer)["blocks.0.token_mlp.fc2.bias"])


@pytest.mark.parametrize(("cfg", "size", "scheme", "words"), [
    ("cycle_mlp_nano", 64, "interpolate", "CycleMLP takes any image size and needs no resizing"),
    ("vip_nano", 64, "interpolate", "a ViP cannot be resized"),
    ({"name": "MlpMixer", **SMALL}, 18, "interpolate", "18 x 18 is not a multiple of patch_size 4"),
    ({"name": "MlpMixer", **SMALL}, [16, 12], "blocks", "img_size 2, 3, ... times as large both ways"),
    ({"name": "MlpMixer", **SMALL}, [12, 18], "blocks", "not a multiple of patch_size"),
    ({"name": "MlpMixer", **SMALL}, [4, 8], "blocks", "cannot make a grid of 1 x 2 tokens from one of 2 x 3"),
    ({"name": "MlpMixer", **SMALL}, 16, "interpolat", "did you mean 'interpolate'"),
    ({"name": "MlpMixer", **SMALL}, [0, 4], "interpolate", "expected one positive integer"),
    ({"name": "ViT", "img_size": 32, "patch_size": 16, "embed_dim": 8, "num_blocks": 1, "num_heads": 1}, 64,
     "interpolate", "no rule for resizing a ViT"),
])
def test_what_cannot_be_resized_says_why(cfg, size, scheme, words):
    with pytest.raises(BadInput, match=words):
        resize_tokens(build_backbone(cfg), size, scheme=scheme)


def test_weights_of_a_vip_of_another_size_are_refused():
    with pytest.raises(BadInput, match="a ViP cannot be resized"):
        adapt_token_arrays({"norm.weight": np.ones(4)}, build_backbone("vip_nano"), from_size=64)


def test_token_hidden_replaces_the_ratio():
    mixer = build_backbone({"name": "MlpMixer", **SMALL, "token_hidden": 5})
    assert mixer.blocks[0].token_mlp.fc1.weight.shape == [5, 6]
    with pytest.raises(BadInput, match="token_hidden is 0"):
        build_backbone({"name": "MlpMixer", **SMALL, "token_hidden": 0})
    assert passl_mixer.resize_tokens is resize_tokens


def test_the_code_of_the_page_runs(tmp_path):
    (block,) = code_of("resolution.md")
    names = run_code([block], tmp_path)
    assert (names["larger"].grid, names["tiled"].grid) == ((10, 10), (16, 16))
    assert names["tiled"](paddle.zeros([1, 3, 64, 64])).shape == [1, 128]
