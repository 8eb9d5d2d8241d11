"""Every method with a head and views that fit: as sections of a configuration, and as overrides of the tiny one."""
import json

MOCO = {"name": "moco", "queue_size": 32, "momentum": 0.9}
LAST_NORM = {"last_norm": True, "last_affine": False}
INCEPTION = {"name": "inception", "img_size": 16}
CLASSIFIER = {"name": "linear", "num_classes": 4}

# name: method, options of the head (an MLP unless it has a name), training views (SimCLR's unless said)
METHODS = {
    "simclr": ({"name": "simclr"}, {}, None),
    "moco": (MOCO, {"norm": None}, None),
    "moco_split": ({**MOCO, "bn_splits": 2}, {}, None),
    "byol": ({"name": "byol", "momentum": 0.9}, {}, None),
    "simsiam": ({"name": "simsiam"}, LAST_NORM, None),
    "moco_v3": ({"name": "moco_v3", "momentum": 0.9}, LAST_NORM, None),
    "supervised": ({"name": "supervised", "mixup_alpha": 0.5, "label_smoothing": 0.1}, CLASSIFIER, INCEPTION),
    "linear_probe": ({"name": "supervised", "freeze_backbone": True}, CLASSIFIER, INCEPTION),
}
SELF_SUPERVISED = ["simclr", "moco", "byol", "simsiam", "moco_v3"]
# Overrides that give a run another optimiser, or random depths in its backbone.
OPTIMISERS = {
    "lars": ["optim={name: lars, lr: 0.1, weight_decay: 1e-4}"],
    "lars_clipped": ["optim={name: lars, lr: 0.1, weight_decay: 1e-4, clip_norm: 1.0}"],
    "adamw_clipped": ["optim={name: adamw, lr: 0.001, weight_decay: 0.1, clip_norm: 1.0}"],
    "sgd": ["optim={name: sgd, lr: 0.1, weight_decay: 1e-4}"],
    "sgd_clipped": ["optim={name: sgd, lr: 0.1, weight_decay: 1e-4, clip_norm: 1.0}"],
}
DROP_PATH = "model.backbone={num_blocks: 2, drop_path_rate: 0.5}"


def model_of(name: str, backbone: dict) -> dict:
    """What ``build_method`` takes."""
    method, head, _ = METHODS[name]
    head = head if "name" in head else {"name": "mlp", "out": 16, **head}
    return {"backbone": backbone, "head": head, "method": method}


def override(key: str, section) -> str:
    """A section of a configuration in the form of ``-o``."""
    return f"{key}={json.dumps(section)}"


def overrides(name: str, **options) -> list:
    """Overrides that give the tiny configuration a method; ``options`` of the method take the table's places."""
    method, head, views = METHODS[name]
    sections = {"model.method": {**method, **options}, "model.head": head, "data.train_views": views}
    return [override(key, section) for key, section in sections.items() if section]
