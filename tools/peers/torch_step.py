"""Times inference and training steps of networks on PyTorch, eager, on the CPU: timm's, and ours of ``torch_networks``.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with PyTorch (and timm); it imports
nothing of this project's package. The set-up:

    {"network": {"timm": "mixer_b16_224"} | {"mixer": {options of timm's MlpMixer}} | {"own": "cycle_mlp_b1"},
     "batch": 8, "size": 224, "threads": 2, "min_seconds": 0.5}

Steps: ``infer`` (inference mode) and ``train`` (cross entropy, backward, AdamW), for 1000 classes.
"""
import protocol
import torch
import torch_networks
from torch import nn


def main() -> None:
    """Read the set-up, then measure a step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    network = torch_networks.build(setup["network"])
    images = torch.randn(setup["batch"], 3, setup["size"], setup["size"])
    labels = torch.randint(0, 1000, (setup["batch"],))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    cross_entropy = nn.CrossEntropyLoss()

    def infer() -> None:
        network.eval()
        with torch.inference_mode():
            network(images)

    def train() -> dict:
        network.train()
        clock = protocol.Clock()
        loss = cross_entropy(network(images), labels)
        clock.mark("forward")
        loss.backward()
        clock.mark("backward")
        optimizer.step()
        optimizer.zero_grad()
        clock.mark("optimiser")
        if not torch.isfinite(loss).item():
            raise ArithmeticError(f"the loss of {setup['network']} is {loss.item()}")
        return {"parts": clock.parts}

    facts = {"images": setup["batch"], "parameters": sum(p.numel() for p in network.parameters()),
             "versions": torch_networks.versions()}
    channel.serve({"infer": infer, "train": train}, {"infer": facts, "train": facts})


if __name__ == "__main__":
    main()
