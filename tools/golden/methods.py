"""One step of each method in PyTorch, in the order of its official code; the names of parts are ours.

``loss(batch, step)`` is the forward pass with what the official code writes during it, ``after(step)`` what it does
after the optimiser's step, ``settle()`` what the next forward pass would have begun with. A batch is ``(view, view,
labels, ids, weight, order)``; ``step`` counts from 0.
"""
import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from . import networks


def unit(x):
    return F.normalize(x, dim=1)


class Method(nn.Module):
    def __init__(self, model, total):
        super().__init__()
        self.options, self.total = model["method"], total
        self.backbone = networks.backbone(model["backbone"])
        self.head = networks.head(model["head"], self.backbone.num_features)

    def embed(self, images):
        return self.head(self.backbone(images))

    def twin(self, prefix):
        """A second network that gradients do not reach."""
        for part in ("backbone", "head"):
            second = copy.deepcopy(getattr(self, part)).requires_grad_(False)
            setattr(self, f"{prefix}_{part}", second)

    @torch.no_grad()
    def follow(self, prefix, momentum):
        """``parameters()`` of PyTorch has no running statistics: the second network keeps its own."""
        for part in ("backbone", "head"):
            pairs = zip(getattr(self, part).parameters(), getattr(self, f"{prefix}_{part}").parameters())
            for online, second in pairs:
                second.copy_(momentum * second + (1.0 - momentum) * online)

    def predictor_of(self, entry):
        self.predictor = networks.Head(self.head.mlp[-1].num_features if isinstance(self.head.mlp[-1], nn.BatchNorm1d)
                                       else self.head.mlp[-1].out_features, **entry)

    def after(self, step):
        pass

    def settle(self):
        pass


class SimCLR(Method):
    """simclr ``objective.py``; half its loss, which sums the means of two halves: ours is the mean over all rows."""

    def loss(self, batch, step):
        z1, z2 = unit(self.embed(torch.cat(batch[:2]))).chunk(2)
        size, t = len(z1), self.options["temperature"]
        mask, labels = 1e9 * torch.eye(size), torch.arange(size)
        aa, bb, ab, ba = z1 @ z1.T / t - mask, z2 @ z2.T / t - mask, z1 @ z2.T / t, z2 @ z1.T / t
        return (F.cross_entropy(torch.cat([ab, aa], 1), labels) + F.cross_entropy(torch.cat([ba, bb], 1), labels)) / 2


class MoCo(Method):
    """moco ``builder.py``: queries, the key encoder moves, keys, logits, then the keys enter the queue."""

    def __init__(self, model, total):
        super().__init__(model, total)
        self.twin("key")
        self.register_buffer("queue", unit(torch.randn(self.options["queue_size"], model["head"]["out"])))
        self.pointer = 0

    def loss(self, batch, step):
        q = unit(self.embed(batch[0]))
        with torch.no_grad():
            self.settle()
            k = unit(self.key_head(self.key_backbone(batch[1])))
        positive, negative = (q * k).sum(1, keepdim=True), q @ self.queue.clone().T
        logits = torch.cat([positive, negative], 1) / self.options["temperature"]
        self.queue[self.pointer:self.pointer + len(k)] = k
        self.pointer = (self.pointer + len(k)) % len(self.queue)
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    def settle(self):
        self.follow("key", self.options["momentum"])


class MoCoV3(Method):
    """moco-v3 ``builder.py`` and ``main_moco.py``: the momentum of this iteration, before the keys."""

    def __init__(self, model, total):
        super().__init__(model, total)
        self.predictor_of(self.options["predictor"])
        self.backbone.stem.requires_grad_(False)        # vits.py, stop_grad_conv1
        self.twin("key")

    def loss(self, batch, step):
        q1, q2 = (self.predictor(self.embed(view)) for view in batch[:2])
        with torch.no_grad():
            self.follow("key", 1.0 - 0.5 * (1.0 + math.cos(math.pi * step / self.total)) *
                        (1.0 - self.options["momentum"]))
            k1, k2 = (self.key_head(self.key_backbone(view)) for view in batch[:2])
        return self.contrast(q1, k2) + self.contrast(q2, k1)

    def contrast(self, q, k):
        t = self.options["temperature"]
        return F.cross_entropy(unit(q) @ unit(k).T / t, torch.arange(len(q))) * (2 * t)


class BYOL(Method):
    """deepmind-research ``byol_experiment.py``: the target moves after the optimiser, by the tau of this step."""

    def __init__(self, model, total):
        super().__init__(model, total)
        self.predictor_of(self.options["predictor"])
        self.twin("target")

    def loss(self, batch, step):
        p1, p2 = (self.predictor(self.embed(view)) for view in batch[:2])
        with torch.no_grad():
            z1, z2 = (self.target_head(self.target_backbone(view)) for view in batch[:2])
        return (((unit(p1) - unit(z2)) ** 2).sum(1) + ((unit(p2) - unit(z1)) ** 2).sum(1)).mean()

    def after(self, step):
        decay = 0.5 * (1.0 + math.cos(math.pi * step / self.total))
        self.follow("target", 1.0 - (1.0 - self.options["momentum"]) * decay)


class SimSiam(Method):
    """simsiam ``builder.py`` and ``main_simsiam.py``."""

    def __init__(self, model, total):
        super().__init__(model, total)
        self.predictor_of(self.options["predictor"])

    def loss(self, batch, step):
        z1, z2 = (self.embed(view) for view in batch[:2])
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return -0.5 * (F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean())


class CLIP(Method):
    """openai/CLIP ``model.py`` and the paper's figure 3; the scale is held after the step, as in its section 2.5."""

    def __init__(self, model, total):
        super().__init__(model, total)
        self.text = networks.TextTransformer(**self.options["text"], out_features=model["head"]["out"])
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(self.options["temperature_init"])]))

    def loss(self, batch, step):
        image, text = unit(self.embed(batch[0])), unit(self.text(batch[3]))
        logits, labels = self.logit_scale.exp() * image @ text.T, torch.arange(len(image))
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    @torch.no_grad()
    def after(self, step):
        self.logit_scale.clamp_(max=math.log(self.options["max_scale"]))


class Supervised(Method):
    """Mixup as facebookresearch/mixup-cifar10 ``train.py``: two cross entropies, weighed; smoothing as PyTorch's."""

    def loss(self, batch, step):
        images, labels, weight, order = batch[0], batch[2], batch[4], batch[5]
        scores = self.embed(weight * images + (1 - weight) * images[order])
        one, other = (F.cross_entropy(scores, y, label_smoothing=self.options["label_smoothing"])
                      for y in (labels, labels[order]))
        return weight * one + (1 - weight) * other


METHODS = {"simclr": SimCLR, "moco": MoCo, "moco_v3": MoCoV3, "byol": BYOL, "simsiam": SimSiam, "clip": CLIP,
           "supervised": Supervised}
