"""CLIP: its loss against slow loops, its scale, its step with four backbones, exact resume, what does not fit."""
import math

import cv2
import numpy as np
import paddle
import pytest
from helpers.autocast import LOW, Autocast, take_branches_of_a_gpu
from helpers.backbones import COMPARED
from helpers.definitions import cosine
from helpers.gradients import differences
from helpers.run_folders import assert_same_arrays, last_checkpoint

from passl_mixer import build_backbone, build_head, build_method
from passl_mixer.build import resolve
from passl_mixer.errors import BadInput
from passl_mixer.methods.clip import clip_loss
from passl_mixer.ops.shapes import shapes_only
from passl_mixer.text import write_merges
from passl_mixer.training.optim import build_optimizer
from passl_mixer.training.run import build_run
from passl_mixer.training.trainer import train

TEXT = {"vocab_size": 12, "context_length": 6, "width": 16, "num_layers": 1, "num_heads": 2}
HEAD = {"name": "mlp", "layers": 1, "out": 8, "norm": None, "last_bias": False}
IDS = np.array([[10, 1, 11, 0, 0, 0], [10, 2, 3, 11, 0, 0], [10, 4, 5, 6, 7, 11], [10, 8, 8, 11, 0, 0]], "int32")


def slow_loss(image, text, scale):
    count, total = len(image), 0.0
    for i in range(count):
        own = math.exp(scale * cosine(image[i], text[i]))
        total -= math.log(own / sum(math.exp(scale * cosine(image[i], t)) for t in text)) / 2
        total -= math.log(own / sum(math.exp(scale * cosine(other, text[i])) for other in image)) / 2
    return total / count


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_and_gradients(scale):
    draw = np.random.default_rng(3)
    arrays = [draw.normal(size=(5, 4)), draw.normal(size=(5, 4)), np.array([scale])]
    tensors = [paddle.to_tensor(a.astype("float32"), stop_gradient=False) for a in arrays]
    loss = clip_loss(*tensors)
    assert (loss.dtype, list(loss.shape)) == (paddle.float32, [])
    np.testing.assert_allclose(float(loss), slow_loss(*arrays[:2], scale), rtol=2e-5)
    loss.backward()
    for which, tensor in enumerate(tensors):
        expected = differences(lambda image, text, scale: slow_loss(image, text, scale[0]), arrays, which)
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_known_values_and_low_precision():
    same = paddle.ones([6, 3])
    assert float(clip_loss(same, 5 * same, 14.0)) == pytest.approx(math.log(6), rel=1e-5)
    assert float(clip_loss(paddle.eye(4), 3 * paddle.eye(4), 100.0)) == pytest.approx(0.0, abs=1e-6)
    a, b = (paddle.to_tensor(x.astype("float32")) for x in np.random.default_rng(0).normal(size=[2, 6, 3]))
    assert float(clip_loss(a, b, 9.0)) == pytest.approx(float(clip_loss(b, a, 9.0)), rel=1e-6)
    low = clip_loss(a.astype("bfloat16"), b.astype("bfloat16"), 100.0)
    assert low.dtype == paddle.float32
    assert math.isfinite(float(low))
    for left, right in ((a, b[:5]), (a[0], b[0])):
        with pytest.raises(ValueError, match="of one shape, got"):
            clip_loss(left, right, 1.0)
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match="positive scale, got"):
            clip_loss(a, b, scale)


def tiny(backbone=None, **options):
    paddle.seed(0)
    return build_method({"backbone": backbone or {"name": "mlp_mixer_nano", "embed_dim": 16, "num_blocks": 1},
                         "head": HEAD, "method": {"name": "clip", "text": TEXT, **options}})


def views(count=4):
    return [paddle.to_tensor(np.random.default_rng(0).normal(size=[count, 3, 32, 32]).astype("float32"))]


@pytest.mark.parametrize("backbone", COMPARED, ids=lambda b: b["name"])
def test_steps_move_everything_and_lower_the_loss(backbone):
    method = tiny(backbone)
    method.check_batch(4)
    before = {n: p.numpy() for n, p in method.trainable_parameters()}
    assert {n.split(".")[0] for n in before} == {"backbone", "head", "text", "logit_scale"}
    optimizer = build_optimizer({"name": "adamw", "weight_decay": 0.2}, method.trainable_parameters())
    losses = []
    for _ in range(6):
        found = method(views(), paddle.to_tensor(IDS))
        assert found.keys() == {"loss", "feature_std", "scale", "accuracy"}
        assert all(value.stop_gradient and list(value.shape) == [] for k, value in found.items() if k != "loss")
        losses.append(float(found["loss"]))
        found["loss"].backward()
        assert [n for n, p in method.trainable_parameters() if p.grad is None] == []
        optimizer.step(3e-3)
        optimizer.clear_grad()
        method.after_step(0, 2)
    assert losses[-1] < 0.8 * losses[0]
    still = [n for n, p in method.trainable_parameters() if np.array_equal(before[n], p.numpy())]
    assert [n for n in still if not n.endswith(".bias")] == []


def test_it_trains_in_bfloat16_as_on_a_gpu(monkeypatch):
    take_branches_of_a_gpu(monkeypatch)
    autocast, found = Autocast("bfloat16"), []
    for low in (False, True):
        method = tiny()
        if low:
            autocast.install(monkeypatch)
        with paddle.amp.auto_cast(enable=low, dtype="bfloat16", level="O1"):
            loss = method(views(), paddle.to_tensor(IDS))["loss"]
        loss.backward()
        assert {p.grad.dtype for _, p in method.trainable_parameters()} == {paddle.float32}
        found.append([float(loss), *(p.grad.numpy() for _, p in method.trainable_parameters())])
    assert found[1][0] == pytest.approx(found[0][0], rel=0.05)
    largest = max(np.linalg.norm(gradient) for gradient in found[0][1:])
    for one, other in zip(*(gradients[1:] for gradients in found)):
        assert np.linalg.norm(one - other) <= 0.2 * np.linalg.norm(one) + 1e-3 * largest
    assert autocast.computed["linear"] == {LOW}


def test_forward_is_the_loss_of_its_embeddings():
    method = tiny()
    method.eval()
    with paddle.no_grad():
        found = method(views(), paddle.to_tensor(IDS))
        image, text = method.encode_image(views()[0]).numpy(), method.encode_text(paddle.to_tensor(IDS)).numpy()
    for embeddings in (image, text):
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    assert float(found["scale"]) == pytest.approx(1 / 0.07, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(slow_loss(image, text, 1 / 0.07), rel=1e-4)
    assert float(found["accuracy"]) == np.mean((image @ text.T).argmax(1) == np.arange(4))
    assert method.encoder is method.backbone
    assert method.head.out_features == method.text.out_features == 8


def test_the_scale_starts_at_the_temperature_and_never_passes_its_bound():
    method = tiny(temperature_init=0.5, max_scale=3.0)
    assert method.logit_scale.item() == pytest.approx(math.log(2))
    optimizer = build_optimizer({"name": "sgd", "momentum": 0.0}, [("logit_scale", method.logit_scale)])
    same = method.logit_scale
    for change, expected in ((0.1, math.log(2) + 0.1), (9.0, math.log(3)), (-0.25, math.log(3) - 0.25)):
        (-change * method.logit_scale).sum().backward()
        optimizer.step(1.0)
        optimizer.clear_grad()
        method.after_step(1, 2)
        assert method.logit_scale is same
        assert same.item() == pytest.approx(expected, rel=1e-5)
        assert not same.stop_gradient


def test_what_is_decayed_is_what_the_paper_decays():
    """All weights that are not gains or biases (section 2.5): token and position embeddings too, the scale not."""
    method = tiny()
    named = method.trainable_parameters()
    optimizer = build_optimizer({"name": "adamw", "weight_decay": 0.2}, named)
    kept = {n for n, _ in named} - optimizer.excluded
    assert "logit_scale" in optimizer.excluded
    assert {"text.token.weight", "text.places", "text.projection.weight", "head.mlp.0.weight"} <= kept
    assert all(n in optimizer.excluded for n, p in named if n.endswith(".bias") or ".norm" in n)
    for _, p in named:
        (p * 0.0).sum().backward()
    before = {n: p.numpy() for n, p in named}
    optimizer.step(0.1)
    for name, p in named:
        np.testing.assert_allclose(p.numpy(), before[name] * (0.98 if name in kept else 1.0), rtol=1e-5, err_msg=name)


def test_the_published_network_has_its_parameters():
    """CLIP ViT-B/32 of openai/CLIP: 151,277,313."""
    with shapes_only():
        backbone = build_backbone("vit_b_32_clip")
        head = build_head({**HEAD, "out": 512}, in_features=backbone.num_features)
        method = build_method({"name": "clip", "text": {"vocab_size": 49408}}, backbone=backbone, head=head)
        assert sum(math.prod(p.shape) for _, p in method.trainable_parameters()) == 151_277_313
    assert backbone.num_features == 768


@pytest.mark.parametrize(("options", "said"), [
    ({"text": {**TEXT, "widht": 8}}, "no option 'widht'; did you mean 'width'"),
    ({"text": {"width": 8}}, "needs option 'vocab_size'"),
    ({"text": {**TEXT, "width": "8"}}, "option 'width' is '8', expected an integer"),
    ({"text": {**TEXT, "out_features": 9}}, "no option 'out_features'"),
    ({"text": 5}, "option 'text' is 5, expected a mapping"),
    ({"temperature_init": 0.0}, "temperature_init > 0"),
    ({"temperature_init": 0.005}, "max_scale of at least 1 / temperature_init"),
])
def test_options_that_do_not_fit(options, said):
    with pytest.raises(BadInput, match=said):
        tiny(**options)


def test_inputs_that_do_not_fit():
    method = tiny()
    with pytest.raises(BadInput, match="batch of 1 has no negatives"):
        method.check_batch(1)
    with pytest.raises(BadInput, match="got none; choose an image-text dataset"):
        method(views(), None)
    with pytest.raises(BadInput, match=r"got a tensor of shape \[4\]"):
        method(views(), paddle.to_tensor([0, 1, 2, 3]))
    with pytest.raises(BadInput, match="needs a projector"):
        build_method({"name": "clip", "text": TEXT}, backbone=build_backbone("mlp_mixer_nano"),
                     head=build_head({"name": "linear", "num_classes": 4}, in_features=128))


# ---- in a run, on files

@pytest.fixture
def captioned(tiny, tmp_path):
    """``captioned(*overrides)``: the tiny run on 16 images with captions."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(16):
        value = np.full([16, 16, 3], (40 * (i % 5), 15 * i, 250 - 15 * i), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), value)
        (folder / f"{i}.txt").write_text(f"low {'newer ' * (i % 3)}{i}")
    write_merges(tmp_path / "merges.txt", [("l", "o"), ("lo", "w</w>"), ("n", "e")])
    overrides = [f"data.dataset={{name: image_text_folder, root: {folder}, merges: {tmp_path / 'merges.txt'}, "
                 "context_length: 9}",
                 "model.method={name: clip, text: {width: 16, num_layers: 1, num_heads: 2}}",
                 "model.head={name: mlp, layers: 1, out: 8, norm: null, last_bias: false}",
                 "data.train_views={name: inception, img_size: 16}", "data.batch_size=4"]
    return lambda *more: tiny(*overrides, *more)


def test_resume_continues_bit_for_bit(captioned, tmp_path):
    whole, parts = f"output_dir={tmp_path / 'whole'}", f"output_dir={tmp_path / 'parts'}"
    train(captioned(whole))
    train(captioned(parts, "train.max_steps=3"))
    train(captioned(parts, "data.num_workers=0"), resume=True)
    assert last_checkpoint(tmp_path / "whole")[2]["step"] == last_checkpoint(tmp_path / "parts")[2]["step"] == 8
    assert_same_arrays(tmp_path / "whole", tmp_path / "parts")
    assert "logit_scale" in last_checkpoint(tmp_path / "whole")[0]


def test_the_sizes_of_the_text_tower_follow_the_captions(captioned):
    config = resolve(captioned())
    assert {k: config.model.method.text[k] for k in ("vocab_size", "context_length", "width")} == {
        "vocab_size": 517, "context_length": 9, "width": 16}
    run = build_run(config)
    assert (run.method.text.vocab_size, run.method.text.context_length) == (517, 9)
    assert resolve(captioned("model.method.text.vocab_size=600")).model.method.text.vocab_size == 600
    assert resolve(config) == config


@pytest.mark.parametrize(("override", "said"), [
    ("model.method.text.vocab_size=600", "'model.method.text.vocab_size' is 600 but the captions of 'data.dataset' "
                                         "have vocab_size 517"),
    ("model.method.text.context_length=77", "'model.method.text.context_length' is 77 but .* context_length 9"),
    ("data.dataset={name: synthetic, num_images: 32, img_size: 16}", "clip' needs captions, but dataset 'synthetic'"),
    ("data.train_views={name: simclr, img_size: 16}", r"needs 1 view\(s\)"),
    ("data.batch_size=1", "a batch of 1 has no negatives"),
])
def test_what_does_not_fit_is_said_before_the_first_step(captioned, tmp_path, override, said):
    with pytest.raises(BadInput, match=said):
        train(captioned(override))
    assert not (tmp_path / "run").exists()
