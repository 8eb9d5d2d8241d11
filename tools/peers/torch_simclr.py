"""Times a SimCLR step of a timm Mixer on PyTorch, on the CPU, views by torchvision included.

A peer for ``tools/benchmark.py``; it imports nothing of this project's package. The set-up:

    {"mixer": {options of timm's MlpMixer}, "hidden": 512, "out": 128, "temperature": 0.5, "pictures": "file.npy",
     "batch": 256, "size": 32, "jitter_strength": 0.5, "workers": 1, "ways": [of ``torch_ways``],
     "threads": 2, "min_seconds": 1.0}

A step is called "step.WAY"; all ways train one network, from one ``DataLoader``, and are compiled before the first is
measured.

``pictures``: uint8 [N, S, S, 3]. Views: SimCLR's for CIFAR-10 (arXiv:2002.05709, appendix B.9), on PIL images, by
``workers`` processes of a ``DataLoader``. The loss is lightly's ``NTXentLoss`` where lightly is installed, otherwise
the same loss written here; fused AdamW. A step ends when the workers are as far ahead as they were when it began.
"""
import importlib.util
import time

import numpy as np
import protocol
import torch
import torch.nn.functional as F
import torch_networks
import torch_ways
from torch import nn

ROUNDS, PREFETCH = 400, 2       # batches in an epoch; batches a worker is ahead (DataLoader's default)


def nt_xent(z1, z2, temperature: float):
    """Mean cross entropy of the 2B embeddings, each finding its partner among the 2B - 1 others (equation 1)."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    rows = z.shape[0]
    logits = (z @ z.t() / temperature).masked_fill(torch.eye(rows, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(logits, torch.arange(rows).roll(rows // 2))


def loss_function(temperature: float):
    """``(loss of two [B, D], its name)``."""
    if importlib.util.find_spec("lightly"):
        torch_networks.import_torchvision()         # which lightly imports too
        from lightly.loss import NTXentLoss

        return NTXentLoss(temperature=temperature), "lightly's NTXentLoss"
    return lambda z1, z2: nt_xent(z1, z2, temperature), "NT-Xent written here"


class TwoViews(torch.utils.data.Dataset):
    """Two views of pictures that come again and again; ``asked`` (shared by all processes) counts them."""

    def __init__(self, path: str, length: int, size: int, strength: float):
        torch_networks.import_torchvision()
        from PIL import Image
        from torchvision.transforms import v2

        colours = v2.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        self.view = v2.Compose([
            v2.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(), v2.RandomApply([colours], p=0.8), v2.RandomGrayscale(p=0.2),
            v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
        self.pictures = [Image.fromarray(picture) for picture in np.load(path, allow_pickle=False)]
        self.length, self.asked = length, torch.zeros(64, dtype=torch.int64).share_memory_()

    def __len__(self):
        return self.length

    def __getitem__(self, index: int):
        worker = torch.utils.data.get_worker_info()
        self.asked[worker.id if worker else 0] += 1
        picture = self.pictures[index % len(self.pictures)]
        return self.view(picture), self.view(picture)


class Training:
    """A Mixer with its projector, its optimiser and a stream of batches.

    Args:
        setup: of this file.
        loss_of: two [B, D] -> scalar.
    """

    def __init__(self, setup: dict, loss_of):
        backbone, hidden = torch_networks.timm_mixer({**setup["mixer"], "num_classes": 0}), setup["hidden"]
        head = nn.Sequential(nn.Linear(backbone.num_features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
                             nn.Linear(hidden, setup["out"]))
        self.network, self.batch, self.loss_of = nn.Sequential(backbone, head), setup["batch"], loss_of
        self.optimizer = torch_ways.adamw(self.network.parameters(), lr=1e-3)
        self.dataset = TwoViews(setup["pictures"], self.batch * ROUNDS, setup["size"], setup["jitter_strength"])
        self.batches = iter(torch.utils.data.DataLoader(self.dataset, batch_size=self.batch, shuffle=True,
                                                        drop_last=True, num_workers=setup["workers"]))
        self.done, self.ahead = 0, PREFETCH * setup["workers"]

    def _loss(self, first, second):
        z1, z2 = self.network(torch.cat([first, second])).chunk(2)
        return self.loss_of(z1, z2)

    def step(self, way: str):
        """One optimiser step in a way, as a function of no arguments; its parts."""
        run = torch_ways.program(self._loss, way)

        def train() -> dict:
            clock = protocol.Clock()
            views = next(self.batches)
            clock.mark("data")
            with torch_ways.autocast(way):
                loss = run(*views)
            clock.mark("forward")
            loss.backward()
            clock.mark("backward")
            self.optimizer.step()
            self.optimizer.zero_grad()
            clock.mark("optimiser")
            if not torch.isfinite(loss).item():
                raise ArithmeticError(f"the loss is {loss.item()} ({way})")
            self.done += 1
            while int(self.dataset.asked.sum()) < (self.done + self.ahead) * self.batch:
                time.sleep(0.0005)
            clock.mark("data")
            return {"parts": clock.parts}
        return train


def main() -> None:
    """Read the set-up, compile, then measure a step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    torch_ways.set_up(setup["threads"])
    loss_of, loss_name = loss_function(setup["temperature"])
    training = Training(setup, loss_of)
    steps = {f"step.{way}": training.step(way) for way in setup["ways"]}
    for step in steps.values():
        step()                      # compiles
    facts = {"images": setup["batch"], "parameters": sum(p.numel() for p in training.network.parameters()),
             "loss": loss_name, "versions": torch_networks.versions()}
    channel.serve(steps, dict.fromkeys(steps, facts))


if __name__ == "__main__":
    main()
