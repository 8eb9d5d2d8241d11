"""Configurations and runs of PASSL 0.0.4 for its tests."""
import importlib.util

import pytest

INSTALLED = importlib.util.find_spec("passl") is not None
needs_passl = pytest.mark.skipif(not INSTALLED, reason='needs PASSL: pip install -e ".[cpu,passl]"')
# PASSL's SimCLR head; what PASSL and the packages it imports say while they run.
QUIET = [pytest.mark.filterwarnings(r"ignore:[\s\S]*softmax_with_cross_entropy"),
         pytest.mark.filterwarnings("ignore::DeprecationWarning")]
WIDTHS = {"mlp_mixer_nano": 128, "conv_mlp_nano": 192, "cycle_mlp_nano": 128}
SCALE = {"mean": [127.5] * 3, "std": [127.5] * 3}
VIEWS = [{"name": "RandomResizedCrop", "size": 32}, {"name": "RandomHorizontalFlip"}]
CHW, HWC = [{"name": "Transpose"}, {"name": "Normalize", **SCALE}], [{"name": "ByolNormalize"}, {"name": "Clip"}]
MOMENTUM = {"name": "Momentum", "weight_decay": 1e-4}
LARS = {"name": "LarsMomentumOptimizer", "momentum": 0.9, "exclude_from_weight_decay": [".b_0", "batch_norm"]}


def neck(name, width, out=16, **options):
    return {"name": name, "in_channels": width, "hid_channels": 24, "out_channels": out, **options}


def model_of(method, backbone, width):
    """The model section of PASSL's YAML."""
    if method == "MoCo":
        return {"name": "MoCo", "backbone": backbone, "neck": neck("NonLinearNeckV1", width, with_avg_pool=True),
                "head": {"name": "ContrastiveHead", "temperature": 0.2}, "dim": 16, "K": 16}
    if method == "SimCLR":
        return {"name": "SimCLR", "backbone": backbone, "neck": neck("NonLinearNeckfc3", width),
                "head": {"name": "SimCLRContrastiveHead"}}
    return {"name": "BYOL", "backbone": backbone, "neck": neck("NonLinearNeckV2", width, with_avg_pool=True),
            "predictor": neck("NonLinearNeckV2", 16, with_avg_pool=False), "head": {"name": "L2Head"}, "dim": 16,
            "embedding_dim": width, "num_classes": 2, "target_decay_rate": 0.9, "align_init_network": True}


def trainer(output, folder, model, *, epochs=2, batch_size=4, optimizer=MOMENTUM, transforms=VIEWS, **keys):
    from passl.engine.trainer import Trainer
    from passl.utils.config import AttrDict, create_attr_dict
    labels = model["name"] not in ("MoCo", "SimCLR")
    dataset = {"name": "ImageNet", "dataroot": str(folder), "return_label": labels, "view_trans1": [],
               "return_two_sample": model["name"] != "Classification", "view_trans2": [],
               "transforms": [*transforms, *(HWC if model["name"] == "BYOL" else CHW)]}
    sampler = {"batch_size": batch_size, "shuffle": transforms is VIEWS, "drop_last": True}
    config = AttrDict({
        "epochs": epochs, "output_dir": str(output), "timestamp": "-now", "model": model,
        "dataloader": {"train": {"num_workers": 0, "sampler": sampler, "dataset": dataset}},
        "lr_scheduler": {"name": "CosineAnnealingDecay", "learning_rate": 0.05, "T_max": epochs},
        "optimizer": dict(optimizer), "log_config": {"name": "LogHook", "interval": 1}, **keys})
    create_attr_dict(config)
    output.mkdir(exist_ok=True)
    return Trainer(config)
