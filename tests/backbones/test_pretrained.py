"""``pretrained:`` of ``build_backbone``: every kind of file, and what is said of one that does not fit."""
import numpy as np
import paddle
import pytest
from helpers.arrays import assert_same, random_state
from safetensors.numpy import save_file

from passl_mixer.backbones import build_backbone
from passl_mixer.build import build_model, build_untrained
from passl_mixer.checkpoint import arrays_of, save_checkpoint
from passl_mixer.errors import BadInput
from passl_mixer.surgery.resolution import resize_tokens
from passl_mixer.weights import KEY_MAPS, export_state_dict
from passl_mixer.weights.convert import import_file

SMALL = {"name": "MlpMixer", "img_size": 8, "patch_size": 4, "embed_dim": 12, "num_blocks": 2}


def same(layer, arrays):
    assert_same(arrays_of(layer), arrays)


def trained(cfg):
    """Arrays of a backbone whose every number is its own."""
    return random_state(build_backbone(cfg))


def write_run(folder, cfg, arrays):
    (folder / "checkpoints").mkdir(parents=True)
    path = folder / "checkpoints" / "step_00000003.safetensors"
    model = {**{f"backbone.{name}": value for name, value in arrays.items()}, "head.fc.bias": np.zeros(2, np.float32)}
    save_checkpoint(path, model, {}, {"step": 3, "epoch": 1, "config": {"model": {"backbone": cfg}}})
    return path


def test_our_runs_and_checkpoints(tmp_path):
    arrays = trained(SMALL)
    path = write_run(tmp_path / "run", SMALL, arrays)
    for where in (tmp_path / "run", path, str(path)):
        same(build_backbone({**SMALL, "pretrained": where}), arrays)
    build_backbone({**SMALL, "pretrained": None})


def test_a_state_dict_of_the_backbone_itself(tmp_path):
    backbone = build_backbone(SMALL)
    paddle.save(backbone.state_dict(), str(tmp_path / "w.pdparams"))
    same(build_backbone({**SMALL, "pretrained": str(tmp_path / "w.pdparams")}), arrays_of(backbone))


@pytest.mark.parametrize(("family", "source"), sorted(KEY_MAPS))
def test_every_origin(tmp_path, family, source):
    name = f"{family}_nano"
    arrays = trained(name)
    theirs = export_state_dict({"backbone": arrays}, family=family, target=source)
    save_file(theirs, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **theirs)
    options = {"act": "gelu_tanh"} if source == "google" else {}
    for file in ("w.safetensors", "w.npz"):
        same(build_backbone({"name": name, "pretrained": str(tmp_path / file), **options}), arrays)


def test_googles_activation_is_asked_for(tmp_path):
    theirs = export_state_dict({"backbone": trained(SMALL)}, family="mlp_mixer", target="google")
    np.savez(tmp_path / "w.npz", **theirs)
    line = import_file(tmp_path / "w.npz", tmp_path / "ours.safetensors", allow=["head/*"])
    assert "build the backbone with act: gelu_tanh" in line
    for file in ("w.npz", "ours.safetensors"):
        with pytest.raises(BadInput, match="add act: gelu_tanh"):
            build_backbone({**SMALL, "pretrained": str(tmp_path / file)})
        build_backbone({**SMALL, "act": "gelu_tanh", "pretrained": str(tmp_path / file)})


def test_another_variant_is_named(tmp_path):
    arrays = trained("cycle_mlp_nano")
    ours = write_run(tmp_path / "run", {"name": "cycle_mlp_nano"}, arrays)
    theirs = tmp_path / "w.safetensors"
    save_file(export_state_dict({"backbone": arrays}, family="cycle_mlp", target="official"), theirs)
    for path in (ours, theirs):
        for name in ("cycle_mlp_b1", "mlp_mixer_nano"):
            with pytest.raises(BadInput, match=rf"do not fit '{name}' .*; they fit name: cycle_mlp_nano$"):
                build_backbone({"name": name, "pretrained": str(path)})
    assert paddle.in_dynamic_mode()
    with pytest.raises(BadInput, match="they fit no registered variant"):
        build_backbone({"name": "mlp_mixer_nano", "pretrained": str(write_run(tmp_path / "2", SMALL, trained(SMALL)))})


def test_another_image_size_is_named(tmp_path):
    path = write_run(tmp_path / "run", {"name": "vit_nano"}, trained("vit_nano"))
    with pytest.raises(BadInput, match=r"they fit name: vit_nano at its own img_size \[32\]"):
        build_backbone({"name": "vit_nano", "img_size": 28, "pretrained": str(path)})


def test_the_untrained_baseline_is_untrained(tmp_path, tiny):
    cfg = {"name": "MlpMixer", "img_size": 16, "patch_size": 4, "embed_dim": 16, "num_blocks": 1}
    arrays = trained(cfg)
    path = write_run(tmp_path / "earlier", cfg, arrays)
    config = tiny(f"model.backbone.pretrained={path}")
    same(build_model(config).encoder, arrays)
    path.unlink()
    assert not np.array_equal(arrays_of(build_untrained(config).encoder)["stem.weight"], arrays["stem.weight"])


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(BadInput, match="no checkpoint"):
        build_backbone({**SMALL, "pretrained": str(tmp_path / "none")})
    with pytest.raises(BadInput, match="option 'pretrained' is True"):
        build_backbone({**SMALL, "pretrained": True})
    np.savez(tmp_path / "w.npz", **{"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(BadInput, match=r"w\.npz: the state dict is of no family known here"):
        build_backbone({**SMALL, "pretrained": str(tmp_path / "w.npz")})
    with pytest.raises(BadInput, match="has no option 'dropath'"):
        build_backbone({**SMALL, "dropath": 1, "pretrained": str(tmp_path / "w.npz")})


@pytest.mark.parametrize("family", ["mlp_mixer", "resmlp", "gmlp"])
def test_another_image_size_is_adapted(tmp_path, family):
    """As ``resize_tokens`` does it, from our checkpoints and from a reference's files alike."""
    name = f"{family}_nano"
    small = build_backbone({"name": name, "img_size": 28})
    expected = arrays_of(resize_tokens(small, 36))
    run = write_run(tmp_path / "run", {"name": name, "img_size": 28}, arrays_of(small))
    theirs = export_state_dict({"backbone": arrays_of(small)}, family=family, target="timm")
    save_file(theirs, tmp_path / "timm.safetensors")
    for path in (run, tmp_path / "timm.safetensors"):
        got = arrays_of(build_backbone({"name": name, "img_size": 36, "pretrained": path}))
        for key, value in expected.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_a_vip_of_another_image_size_is_refused(tmp_path):
    """Its shapes would fit, its function would not."""
    arrays = arrays_of(build_backbone({"name": "vip_nano", "img_size": 32}))
    path = write_run(tmp_path / "run", {"name": "vip_nano", "img_size": 32}, arrays)
    same(build_backbone({"name": "vip_nano", "img_size": 32, "pretrained": path}), arrays)
    theirs = export_state_dict({"backbone": arrays}, family="vip", target="official")
    save_file(theirs, tmp_path / "official.safetensors")
    for weights in (path, tmp_path / "official.safetensors"):
        with pytest.raises(BadInput, match="a ViP cannot be resized"):
            build_backbone({"name": "vip_nano", "img_size": 28, "pretrained": weights})
