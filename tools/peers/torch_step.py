"""Times inference and training steps of networks on PyTorch on the CPU: timm's, and ours of ``torch_networks``.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with PyTorch (and timm); it imports
nothing of this project's package. The set-up:

    {"network": {"timm": "mixer_b16_224"} | {"mixer": {options of timm's MlpMixer}} | {"own": "cycle_mlp_b1"},
     "steps": ["infer", "train"], "ways": [of ``torch_ways``], "convolutional": false,
     "batch": 8, "size": 224, "threads": 2, "min_seconds": 0.5}

Steps: "infer.WAY" (inference mode) and "train.WAY" (cross entropy, backward, fused AdamW), for 1000 classes. Programs
are compiled before the first step is measured. ``convolutional``: both memory layouts are tried for every step and
precision, without compiling, and the faster one is measured.
"""
import copy

import protocol
import torch
import torch_networks
import torch_ways
from torch import nn


class Side:
    """A network in one memory layout, with its optimiser and its batch.

    Args:
        network: a module; it is turned in place.
        setup: of this file.
        layout: "channels first" or "channels last".
    """

    def __init__(self, network: nn.Module, setup: dict, layout: str):
        form = torch.channels_last if layout == "channels last" else torch.contiguous_format
        self.network = network.to(memory_format=form)
        self.images = torch.randn(setup["batch"], 3, setup["size"], setup["size"]).contiguous(memory_format=form)
        self.labels = torch.randint(0, 1000, (setup["batch"],))
        self.optimizer = torch_ways.adamw(self.network.parameters(), lr=1e-3)
        self._cross_entropy = nn.CrossEntropyLoss()

    def step(self, name: str, way: str):
        """The step "infer" or "train" in a way, as a function of no arguments."""
        return self._inference(way) if name == "infer" else self._training(way)

    def _inference(self, way: str):
        run = torch_ways.program(self.network, way, frozen=True)
        without_gradients = torch.no_grad if torch_ways.is_compiled(way) else torch.inference_mode

        def infer() -> None:
            self.network.eval()
            with without_gradients(), torch_ways.autocast(way):
                run(self.images)
        return infer

    def _training(self, way: str):
        run = torch_ways.program(self._loss, way)

        def train() -> dict:
            self.network.train()
            clock = protocol.Clock()
            with torch_ways.autocast(way):
                loss = run(self.images, self.labels)
            clock.mark("forward")
            loss.backward()
            clock.mark("backward")
            self.optimizer.step()
            self.optimizer.zero_grad()
            clock.mark("optimiser")
            if not torch.isfinite(loss).item():
                raise ArithmeticError(f"the loss of {type(self.network).__name__} is {loss.item()} ({way})")
            return {"parts": clock.parts}
        return train

    def _loss(self, images, labels):
        return self._cross_entropy(self.network(images), labels)


def faster_layout(sides: dict, name: str, way: str) -> str:
    """The memory layout in which a step is faster, without compiling; the only one where there is no other."""
    if len(sides) == 1:
        return next(iter(sides))
    plain = "bf16" if torch_ways.is_bf16(way) else "eager"
    return min(sides, key=lambda layout: torch_ways.shortest(sides[layout].step(name, plain)))


def main() -> None:
    """Read the set-up, compile, then measure a step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    torch_ways.set_up(setup["threads"])
    network = torch_networks.build(setup["network"])
    common = {"images": setup["batch"], "parameters": sum(p.numel() for p in network.parameters()),
              "versions": torch_networks.versions()}
    layouts = ("channels first", "channels last") if setup["convolutional"] else ("channels first",)
    sides = {layout: Side(copy.deepcopy(network), setup, layout) for layout in layouts}
    steps, facts = {}, {}
    for name in setup["steps"]:
        chosen = {}
        for way in setup["ways"]:
            precision = torch_ways.is_bf16(way)
            if precision not in chosen:
                chosen[precision] = faster_layout(sides, name, way)
            steps[f"{name}.{way}"] = sides[chosen[precision]].step(name, way)
            facts[f"{name}.{way}"] = {**common, "layout": chosen[precision]}
            torch_ways.shortest(steps[f"{name}.{way}"])         # compiles
    channel.serve(steps, facts)


if __name__ == "__main__":
    main()
