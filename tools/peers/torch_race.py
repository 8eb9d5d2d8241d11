"""Trains a SimCLR recipe on PyTorch at its best and prints its accuracy as it goes: the peer of a race.

A peer for ``tools/benchmark.py race``; it imports nothing of this project's package. It reads one JSON object from
standard input, written by ``tools/bench/race_recipe.py``: data, network, head, views, schedule and evaluation of one of
our configurations, and ``way`` (of ``torch_ways``), ``workers``, ``threads``, ``seed``. The network is timm's, the
views torchvision v2's on PIL images in worker processes, the loss lightly's, the optimiser fused AdamW. What is
printed: "epoch 4/24  kNN accuracy 0.7512" as our runs print it; at the end "epoch 4/24  labels_1 0.5012", computed
from copies of the encoder that were made where kNN was; with ``trial_steps``, "seconds per step 0.12", and no more.
"""
import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch_networks
import torch_probes
import torch_ways
from torch import nn

BLUR = (0.1, 2.0)       # sigma in pixels (arXiv:2002.05709, appendix A)


def read_data(data: dict) -> dict:
    """``{"train", "test": (uint8 [N, S, S, 3], int64 [N])}`` of CIFAR-10's binary files or of the packaged archive."""
    if "archive" in data:
        with np.load(data["archive"], allow_pickle=False) as arrays:
            return {split: (np.repeat(arrays[f"{split}_images"][..., None], 3, axis=3),
                            arrays[f"{split}_labels"].astype(np.int64)) for split in ("train", "test")}
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    found = {}
    for split, names in files.items():
        records = np.concatenate([np.fromfile(Path(data["folder"]) / name, np.uint8) for name in names])
        records = records.reshape(-1, 3073)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        found[split] = np.ascontiguousarray(images), records[:, 0].astype(np.int64)
    return found


class TwoViews(torch.utils.data.Dataset):
    """Two random views, uint8 [3, S, S], of every image; the options are those of our recipe ``simclr``."""

    def __init__(self, images: np.ndarray, options: dict):
        torch_networks.import_torchvision()
        from PIL import Image
        from torchvision.transforms import v2

        size = options["img_size"]
        crop = v2.RandomResizedCrop(size, scale=(options["crop_min"], 1.0), interpolation=v2.InterpolationMode.BICUBIC)
        steps = [crop, v2.RandomHorizontalFlip(options["flip_p"]),
                 v2.RandomApply([v2.ColorJitter(*options["jitter"])], p=options["jitter_p"]),
                 v2.RandomGrayscale(p=options["gray_p"])]
        if options["blur_p"]:
            steps.append(v2.RandomApply([v2.GaussianBlur(2 * (size // 10 // 2) + 1, BLUR)], p=options["blur_p"]))
        self.view = v2.Compose([*steps, v2.PILToTensor()])
        self.images = [Image.fromarray(image) for image in images]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index: int):
        return self.view(self.images[index]), self.view(self.images[index])


class Scale(nn.Module):
    """BatchNorm with a learned scale and no shift."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.weight = nn.BatchNorm1d(width, affine=False), nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.norm(x) * self.weight


def projector(width: int, head: dict) -> nn.Sequential:
    """The head of SimCLR: linear maps with BatchNorm (where asked) and ReLU between them."""
    norm, hidden, steps = head["norm"], head["hidden"] or width, []
    for _ in range(head["layers"] - 1):
        steps += [nn.Linear(width, hidden, bias=not norm), *([nn.BatchNorm1d(hidden)] if norm else []), nn.ReLU()]
        width = hidden
    steps.append(nn.Linear(width, head["out"], bias=not head["last_norm"]))
    steps += [Scale(head["out"])] if head["last_norm"] else []
    if head["init_std"]:
        for layer in steps:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=head["init_std"])
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return nn.Sequential(*steps)


class Race:
    """A run of the recipe.

    Args:
        setup: of this file.
    """

    def __init__(self, setup: dict):
        self.setup, self.data = setup, read_data(setup["data"])
        torch_networks.import_torchvision()
        from lightly.loss import NTXentLoss

        self.backbone = torch_networks.build(setup["network"])
        self.network = nn.Sequential(self.backbone, projector(self.backbone.num_features, setup["head"]))
        counted = sum(p.numel() for p in self.network.parameters())
        if counted != setup["parameters"]:
            raise SystemExit(f"the network on PyTorch has {counted} parameters and ours {setup['parameters']}; "
                             "expected the same network")
        self.loss_of = NTXentLoss(temperature=setup["temperature"])
        parameters = list(self.network.parameters())
        groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": setup["weight_decay"]},
                  {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
        self.optimizer = torch_ways.adamw(groups, lr=0.0, betas=setup["betas"], eps=setup["eps"])
        self.mean, self.std = (torch.tensor(setup["views"][key]).reshape(3, 1, 1) for key in ("mean", "std"))
        self.loader = torch.utils.data.DataLoader(
            TwoViews(self.data["train"][0], setup["views"]), batch_size=setup["batch"], shuffle=True, drop_last=True,
            num_workers=setup["workers"], persistent_workers=setup["workers"] > 0)
        self.run, self.done = torch_ways.program(self._loss, setup["way"]), 0
        self.total = len(self.loader) * setup["epochs"]

    def _images(self, pictures):
        """uint8 [B, 3, S, S] -> normalised float32."""
        return (pictures / 255.0 - self.mean) / self.std

    def _loss(self, first, second):
        z1, z2 = self.network(self._images(torch.cat([first, second]))).chunk(2)
        return self.loss_of(z1, z2)

    def rate(self) -> float:
        """The learning rate of the next step: linear from 0, then half a cosine."""
        warm_up = round(self.setup["warmup_epochs"] * len(self.loader))
        peak, least = self.setup["lr"], self.setup["min_lr"]
        if self.done < warm_up:
            return peak * self.done / warm_up
        share = (self.done - warm_up) / max(1, self.total - warm_up)
        return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * share))

    def step(self, views) -> None:
        """One optimiser step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch_ways.autocast(self.setup["way"]):
            loss = self.run(*views)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        if self.done % 10 == 0 and not torch.isfinite(loss).item():
            raise ArithmeticError(f"the loss is {loss.item()} after {self.done} steps")

    @torch.no_grad()
    def features(self, split: str, limit=None) -> tuple:
        """``(features [N, D], labels [N])`` of a split, or of ``limit`` images of it."""
        images, labels = self.data[split]
        if limit and limit < len(images):
            rows = torch_probes.spaced(labels, limit)
            images, labels = images[rows], labels[rows]
        pictures, found = torch.from_numpy(images).permute(0, 3, 1, 2), []
        self.network.eval()
        with torch_ways.autocast(self.setup["way"]):
            for some in pictures.split(self.setup["eval_batch"]):
                found.append(self.backbone(self._images(some)).float())
        self.network.train()
        return torch.cat(found), torch.from_numpy(labels)

    def knn(self) -> float:
        """The accuracy of the weighted nearest neighbours."""
        options = self.setup["knn"]
        return torch_probes.knn(*self.features("train", options["bank_images"]), *self.features("test"),
                                k=options["k"], temperature=options["temperature"])

    def labels_1(self) -> float:
        """The accuracy with one label per class."""
        sides = [array.numpy() for split in ("train", "test") for array in self.features(split)]
        return torch_probes.few_labels(*sides, labels_per_class=1, **self.setup["few_labels"])


def trial(race: Race, steps: int) -> None:
    """Print the median seconds of a step, of which the first third do not count."""
    seconds, started = [], time.perf_counter()
    while len(seconds) < steps:
        for views in race.loader:
            race.step(views)
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
            if len(seconds) == steps:
                break
    print(f"seconds per step {statistics.median(seconds[steps // 3:]):.6f}", flush=True)


def main() -> None:
    """Read the set-up and run."""
    setup = json.loads(sys.stdin.readline())
    torch_ways.set_up(setup["threads"])
    torch.manual_seed(setup["seed"])
    race, epochs, kept = Race(setup), setup["epochs"], {}
    if setup["trial_steps"]:
        trial(race, setup["trial_steps"])
        return
    for epoch in range(1, epochs + 1):
        for views in race.loader:
            race.step(views)
        if epoch % setup["every_epochs"] == 0:
            if setup["item"] == "labels_1":
                kept[epoch] = {key: value.clone() for key, value in race.backbone.state_dict().items()}
            print(f"epoch {epoch}/{epochs}  kNN accuracy {race.knn():.4f}", flush=True)
    for epoch, state in kept.items():
        race.backbone.load_state_dict(state)
        print(f"epoch {epoch}/{epochs}  labels_1 {race.labels_1():.4f}", flush=True)


if __name__ == "__main__":
    main()
