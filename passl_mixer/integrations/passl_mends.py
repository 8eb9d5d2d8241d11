"""Fixes of defects that stop PASSL 0.0.4 on a CPU, on today's Paddle or NumPy; what a method computes stays.

Each row of ``MENDS`` has a place, a reason, and a function from the original there to its replacement. The rows of
``REPAIRS`` change results; ``register(repair=True)`` applies them.
"""
import functools
import inspect
import random
import sys

import numpy
import paddle
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.integrations.passl_layers import HostBackbone
from passl_mixer.integrations.passl_shim import replace_in_view


def shuffle_on_any_device(original):
    """MoCo's batch shuffle of x [B, ...] without ``.cuda()``, on any device."""
    def _batch_shuffle_ddp(self, x):
        if x.place.is_gpu_place():
            return original(self, x)
        gather = sys.modules[original.__module__].concat_all_gather
        with paddle.no_grad():
            everybody = gather(x)
            order = paddle.randperm(everybody.shape[0])
            if paddle.distributed.get_world_size() > 1:
                paddle.distributed.broadcast(order, src=0)
            mine = order.reshape([-1, x.shape[0]])[paddle.distributed.get_rank()]
            return paddle.index_select(everybody, mine), paddle.argsort(order)
    return _batch_shuffle_ddp


def scalar_accuracies(original):
    """PASSL's ``accuracy`` with scalars in place of shape [1]."""
    @functools.wraps(original)
    def accuracy(output, target, topk=(1,)):
        return [value.reshape([]) for value in original(output, target, topk)]
    return accuracy


def resnet_by_keywords(original):
    """Bases of PASSL's ResNet that pass ``num_classes`` by keyword."""
    parent, = original

    class ByKeywords(parent):
        def __init__(self, block, depth, num_classes, with_pool):
            super().__init__(block, depth, num_classes=num_classes, with_pool=with_pool)
    return (ByKeywords,)


def byol_schedule(original):
    """``ByolLRScheduler.__init__`` with the class that exists."""
    warm_cosine = sys.modules[original.__module__].CosinLinearWarmup

    def __init__(self, total_image, total_batch, total_steps, warmup_steps, start_lr, end_lr, last_epoch=-1,
                 verbose=False):
        warmup = warmup_steps * total_image // total_batch
        steps = total_steps * total_image // total_batch
        warm_cosine.__init__(self, end_lr, steps - warmup, warmup, start_lr, end_lr, last_epoch, verbose)
    return __init__


def byol_classification(original):
    """``ByolClassification.__init__`` with the class that exists."""
    module = sys.modules[original.__module__]

    def __init__(self, backbone, with_sobel=False, head=None):
        nn.Layer.__init__(self)
        self.with_sobel = with_sobel
        self.backbone = module.build_backbone(backbone)
        if head is not None:
            self.head = module.build_head(head)
    return __init__


def pretrained_survives(original):
    """BYOL's ``net_init`` that keeps the loaded weights of our backbones."""
    def net_init(self, network):
        ours = [layer for layer in network.sublayers() if isinstance(layer, HostBackbone) and layer.has_pretrained]
        kept = [{name: value.clone() for name, value in layer.state_dict().items()} for layer in ours]
        original(self, network)
        for layer, state in zip(ours, kept):
            layer.set_state_dict(state)
    return net_init


MODELING = "passl.modeling"
MENDS = [
    (f"{MODELING}.architectures.moco:MoCo._batch_shuffle_ddp", "calls .cuda(), which is an error without a GPU",
     shuffle_on_any_device),
    *[(f"{module}:accuracy", "gives arrays of one number, of which NumPy 2.4 makes no float for the log",
       scalar_accuracies) for module in
      (f"{MODELING}.heads.contrastive_head", f"{MODELING}.heads.clas_head", "passl.utils.misc",
       "passl.datasets.imagenet", "passl.datasets.cifar")],
    (f"{MODELING}.backbones.resnet:ResNet.__bases__", "passes num_classes by position where Paddle has width now: "
     "an IndexError for ResNet-50, a network of another width for ResNet-18", resnet_by_keywords),
    ("passl.solver.byol_lr_scheduler:ByolLRScheduler.__init__", "names a class that does not exist", byol_schedule),
    (f"{MODELING}.architectures.byol_clas:ByolClassification.__init__", "names a class that it does not import",
     byol_classification),
    (f"{MODELING}.architectures.BYOL:BYOL.net_init", "draws the convolutions anew after pretrained weights were "
     "loaded into them", pretrained_survives),
]


def moving_target(original):
    """``Trainer.add_custom_hooks`` with a hook that updates BYOL's target."""
    hooks = sys.modules["passl.hooks"]
    byol = sys.modules[f"{MODELING}.architectures"].BYOL

    class UpdateTarget(hooks.Hook):
        """The target becomes m * target + (1 - m) * online after the optimiser's step (arXiv:2006.07733, eq. 1)."""

        priority = 1

        def train_iter_end(self, trainer):
            getattr(trainer.model, "_layers", trainer.model).update_target_network()

    def add_custom_hooks(self):
        original(self)
        if isinstance(getattr(self.model, "_layers", self.model), byol):
            self.add_hook(UpdateTarget())
    return add_custom_hooks


def resume_after_the_epoch(original):
    """``Trainer.resume`` with the key that was saved, from the next epoch on."""
    reader = sys.modules[original.__module__]
    load = reader.paddle.load

    def load_with_key(path):
        checkpoint = load(path)
        if "lr_sheduer" in checkpoint:
            checkpoint.setdefault("lr_scheduler", checkpoint["lr_sheduer"])
        return checkpoint

    replace_in_view(reader, load=load_with_key)

    def resume(self, checkpoint_path):
        original(self, checkpoint_path)
        self.current_iter = self.start_epoch * self.iters_per_epoch
    return resume


def seeded(original):
    """``Trainer.__init__`` that reads the key ``seed``."""
    @functools.wraps(original)
    def __init__(self, cfg):
        seed = cfg.get("seed")
        if seed is not None:
            rank = paddle.distributed.get_rank()
            paddle.seed(seed)                   # the same weights everywhere,
            random.seed(seed + rank)            # other views on every rank
            numpy.random.seed(seed + rank)
        original(self, cfg)
    return __init__


REPAIRS = [
    ("passl.engine.trainer:Trainer.add_custom_hooks", "BYOL's target is never updated", moving_target),
    ("passl.engine.trainer:Trainer.resume", "looks for a key that is saved misspelt, and repeats an epoch",
     resume_after_the_epoch),
    ("passl.engine.trainer:Trainer.__init__", "the key seed is not read", seeded),
]


def located(place: str) -> tuple:
    """``(owner, name, value)`` of ``"module:Class.name"``.

    Raises:
        BadInput: this PASSL has no such attribute.
    """
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    try:
        owner = sys.modules[module]
        for step in owners:
            owner = getattr(owner, step)
        return owner, name, inspect.getattr_static(owner, name) if name != "__bases__" else owner.__bases__
    except (KeyError, AttributeError) as error:
        raise BadInput(f"this passl has no {place}, but 0.0.4 has; "
                       "pip install --force-reinstall passl==0.0.4") from error


def mend(host, rows) -> None:
    """Apply every row once, after a check that all places exist; ``host`` records the rows that are applied."""
    done = host.__dict__.setdefault("mended_by_passl_mixer", set())
    waiting = [row for row in rows if row[:2] not in done]
    for place, _, _ in waiting:
        located(place)
    for place, why, make in waiting:
        owner, name, value = located(place)
        setattr(owner, name, make(value))
        done.add((place, why))
