"""PASSL 0.0.4 itself, from PyPI, trains our backbones: its Trainer, its models, its files."""
import re
import subprocess
import sys

import numpy
import paddle
import pytest
from helpers.arrays import differing, state_of
from passl_runs import INSTALLED, LARS, MOMENTUM, QUIET, WIDTHS, model_of, needs_passl, trainer

from passl_mixer import build_backbone, list_backbones
from passl_mixer.errors import BadInput
from passl_mixer.integrations.passl import register

pytestmark = QUIET


@pytest.mark.skipif(INSTALLED, reason="PASSL is installed here")
def test_a_missing_host_is_said():
    with pytest.raises(BadInput, match=r"^passl is not installed, expected 0\.0\.4; pip install"):
        register()


FRESH = """
import warnings
warnings.simplefilter("ignore")
import importlib, sys
from passl_mixer.errors import BadInput
from passl_mixer.integrations import passl_shim
from passl_mixer.integrations.passl import REQUIRED, register
for name in REQUIRED:
    importlib.import_module(name)
passl_shim.import_host()
from passl.modeling.architectures import MoCo
from passl.modeling.backbones.builder import BACKBONES
from passl.modeling.heads.builder import HEADS
class Other:
    pass
BACKBONES.register(Other, name="cycle_mlp_b1")
before = dict(BACKBONES._obj_map), dict(HEADS._obj_map), MoCo.__init__, MoCo._batch_shuffle_ddp
for output in ("pooled", "sideways"):
    try:
        register(output=output)
    except BadInput as error:
        print("refused:", error)
assert before == (BACKBONES._obj_map, HEADS._obj_map, MoCo.__init__, MoCo._batch_shuffle_ddp)
del BACKBONES._obj_map["cycle_mlp_b1"]
names = register()
assert register(output="vector") == names and BACKBONES.get("mlp_mixer_nano").output == "vector"
assert BACKBONES.get("ResNet").__module__.startswith("passl.") and "ResNet" not in names
try:
    import paddle.fluid
except ImportError:
    print("gone:", sorted(name for name in sys.modules if name.startswith("paddle.fluid")))
"""


@needs_passl
def test_nothing_is_half_registered_and_fluid_is_gone():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "refused: backbone 'cycle_mlp_b1' is registered in PASSL already, by __main__" in done.stdout
    assert "refused: output is 'sideways'" in done.stdout
    assert "gone: []" in done.stdout


@needs_passl
def test_every_name_is_registered(passl):
    names = register()
    assert set(list_backbones()) - set(names) == {"ResNet"}
    assert {"MlpMixer", "MlpMixerClsHead", "linear", "mlp"} <= set(names)


@needs_passl
@pytest.mark.parametrize("backbone", WIDTHS)
@pytest.mark.parametrize("method", ["MoCo", "SimCLR", "BYOL"])
def test_two_epochs_are_trained_and_saved(passl, tmp_path, folder, method, backbone):
    run = trainer(tmp_path / "run", folder, model_of(method, {"name": backbone}, WIDTHS[backbone]),
                  optimizer=LARS if method == "SimCLR" else MOMENTUM)
    start = state_of(run.model)
    run.train()
    assert run.current_iter == 4
    assert numpy.isfinite(float(run.outputs["loss"]))
    assert (tmp_path / "run" / "epoch_1.pdparams").is_file()
    saved = tmp_path / "run" / "epoch_2.pdparams"
    ours = build_backbone({"name": backbone, "pretrained": str(saved)})
    assert not differing(state_of(ours), state_of(run.model.backbone.net))
    changed = differing(start, state_of(run.model))
    assert len([name for name in changed if name.startswith("backbone.net.")]) > 10
    if method == "BYOL":        # what repair=True repairs
        assert not [name for name in changed if name.startswith("towers.1.") and not re.search("_mean|_variance", name)]


@needs_passl
@pytest.mark.parametrize(("change", "words"), [
    ({"backbone": {"output": "vector"}}, r"NonLinearNeckV1 with with_avg_pool: True takes output pooled or map, and "
                                         r"backbone 'mlp_mixer_nano' gives 'vector'; write output: pooled"),
    ({"backbone": {"output": "map"}, "neck": {"with_avg_pool": False}}, "takes output pooled or vector"),
    ({"neck": {"in_channels": 2048}}, r"model.neck.in_channels is 2048, .* gives 128 features; write .*: 128"),
    ({"backbone": {"frozen_stages": 9}}, "frozen_stages is 9, expected -1"),
    ({"backbone": {"patch": 4}}, "no option 'patch'; did you mean 'patch_size'"),
])
def test_what_moco_cannot_take_is_said_when_it_is_built(passl, change, words):
    from passl.modeling.architectures import build_model
    model = model_of("MoCo", {"name": "mlp_mixer_nano"}, 128)
    for key, options in change.items():
        model[key].update(options)
    with pytest.raises(BadInput, match=words):
        build_model(model)


@needs_passl
def test_what_other_models_cannot_take_is_said_too(passl):
    from passl.modeling.architectures import build_model
    spread = {"name": "mlp_mixer_nano", "output": "map"}
    with pytest.raises(BadInput, match="NonLinearNeckfc3 takes output pooled or vector"):
        build_model(model_of("SimCLR", spread, 128))
    with pytest.raises(BadInput, match=r"PASSL's BYOL with NonLinearNeckV2 .* takes output pooled,"):
        build_model(model_of("BYOL", spread, 128))
    with pytest.raises(BadInput, match="embedding_dim is 2048"):
        build_model({**model_of("BYOL", {"name": "mlp_mixer_nano"}, 128), "embedding_dim": 2048})
    with pytest.raises(BadInput, match="CLIPWrapper needs PASSL's backbone CLIP, got 'mlp_mixer_nano'"):
        build_model({"name": "CLIPWrapper", "architecture": spread, "head": {"name": "CLIPHead"}})


@needs_passl
def test_mocos_shuffle_is_undone(passl):
    from passl.modeling.architectures import build_model
    model = build_model(model_of("MoCo", {"name": "mlp_mixer_nano"}, 128))
    x = paddle.arange(16, dtype="float32").reshape([8, 2])
    paddle.seed(3)
    shuffled, back = model._batch_shuffle_ddp(x)
    assert not numpy.array_equal(shuffled.numpy(), x.numpy())
    assert sorted(shuffled.numpy()[:, 0].tolist()) == x.numpy()[:, 0].tolist()
    numpy.testing.assert_array_equal(model._batch_unshuffle_ddp(shuffled, back).numpy(), x.numpy())
