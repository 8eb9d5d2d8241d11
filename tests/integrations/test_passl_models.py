"""What else of PASSL 0.0.4 our backbones go into, and what of its own was mended."""
import numpy
import paddle
import pytest
from helpers.arrays import differing, state_of
from passl_runs import QUIET, model_of, neck, needs_passl, trainer
from safetensors.numpy import save_file

from passl_mixer import build_backbone

pytestmark = [needs_passl, *QUIET]


@pytest.mark.parametrize("head", [{"name": "ClasHead", "with_avg_pool": True, "in_channels": 192, "num_classes": 6},
                                  {"name": "MlpMixerClsHead", "in_channels": 192, "num_classes": 6}])
def test_a_linear_probe_leaves_the_pretrained_backbone_alone(passl, tmp_path, folder, head):
    donor = build_backbone("conv_mlp_nano")
    save_file(state_of(donor), str(tmp_path / "donor.safetensors"))
    backbone = {"name": "conv_mlp_nano", "pretrained": str(tmp_path / "donor.safetensors"), "frozen_stages": "all"}
    run = trainer(tmp_path / "run", folder, {"name": "Classification", "backbone": backbone, "head": head})
    start = state_of(run.model)
    run.train()
    assert not differing(state_of(donor), state_of(run.model.backbone.net))
    assert {name.split(".")[0] for name in differing(start, state_of(run.model))} == {"head"}
    assert 0 <= float(run.outputs["acc1"]) <= float(run.outputs["acc5"]) <= 100


def test_byol_keeps_pretrained_convolutions(passl, tmp_path):
    from passl.modeling.architectures import build_model
    donor = state_of(build_backbone("mlp_mixer_nano"))
    save_file(donor, str(tmp_path / "donor.safetensors"))
    given = {"name": "mlp_mixer_nano", "pretrained": str(tmp_path / "donor.safetensors")}
    model = build_model(model_of("BYOL", given, 128))
    assert not differing(donor, state_of(model.backbone.net))
    assert not differing(donor, state_of(model.towers[1][0].net))


def test_moco_byol_takes_a_backbone_of_ours(passl):
    from passl.modeling.architectures import build_model
    model = build_model({"name": "MoCoBYOL", "backbone": {"name": "mlp_mixer_nano"}, "queue_dim": 16, "dim": 16,
                         "neck": neck("NonLinearNeckV3", 128), "predictor": neck("NonLinearNeckV3", 16),
                         "head": {"name": "MBHead"}, "use_synch_bn": False})
    views = [paddle.randn([4, 3, 32, 32]) for _ in range(2)]
    assert numpy.isfinite(float(model(*views, current_iter=1, total_iters=2)["loss"]))


def test_the_mends_of_passls_own_parts(passl):
    from passl.modeling.architectures import build_model
    from passl.modeling.backbones import build_backbone as build_theirs
    from passl.solver.byol_lr_scheduler import ByolLRScheduler
    theirs = build_theirs({"name": "ResNet", "depth": 18})
    right = paddle.vision.models.resnet18(num_classes=0, with_pool=False)
    shapes = [[value.shape for value in net.state_dict().values()] for net in (theirs, right)]
    assert shapes[0] == shapes[1]
    schedule = ByolLRScheduler(total_image=100, total_batch=10, total_steps=10, warmup_steps=2, start_lr=0.0,
                               end_lr=1.0)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_lr())
        schedule.step()
    assert rates[:20] == pytest.approx([i / 20 for i in range(20)])
    assert rates[20:] == pytest.approx([0.5 * (1 + numpy.cos(numpy.pi * i / 80)) for i in range(80)])
    probe = build_model({"name": "ByolClassification", "backbone": {"name": "mlp_mixer_nano"},
                         "head": {"name": "ClasHead", "in_channels": 128, "num_classes": 6}})
    outputs = probe(paddle.rand([4, 32, 32, 3]), paddle.to_tensor([0, 1, 2, 3]))
    assert numpy.isfinite(float(outputs["loss"]))
