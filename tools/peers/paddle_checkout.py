"""Times training steps of PASSL's MlpMixer and PaddleViT's CycleMLP, from a checkout of theirs, on Paddle as it comes.

A peer for ``tools/benchmark.py``; it imports nothing of this project's package, so that nothing of the CPU is set up.
Of a checkout, the one file that defines the network is loaded, with what that file itself imports. The set-up:

    {"passl": "checkout", "options": {of its MlpMixer}} | {"paddlevit": "checkout", "options": {of its CycleNet}}
    and "batch": 8, "size": 224, "min_seconds": 0.5

The step is ``train``: forward, cross entropy, backward, Paddle's AdamW, for 1000 classes.
"""
import importlib
import sys
import types
from pathlib import Path

import paddle
import protocol
from paddle import nn


class _Table:
    """Stands in for PASSL's registry, whose package does not import on Paddle 2.5 and later."""

    def register(self, *args):
        """The decorator, without effect."""
        return args[0] if args else lambda cls: cls


def passl(checkout: str, options: dict) -> nn.Layer:
    """PASSL's MlpMixer with a linear head."""
    found = sorted(Path(checkout).glob("passl*/modeling/backbones/mlp_mixer.py"))
    if not found:
        raise SystemExit(f"{checkout} has no passl*/modeling/backbones/mlp_mixer.py; expected a checkout of PASSL 1.x")
    package, builder = types.ModuleType("passl_backbones"), types.ModuleType("passl_backbones.builder")
    package.__path__, builder.BACKBONES = [str(found[0].parent)], _Table()
    sys.modules.update({"passl_backbones": package, "passl_backbones.builder": builder})
    backbone = importlib.import_module("passl_backbones.mlp_mixer").MlpMixer(**options)
    return nn.Sequential(backbone, nn.Linear(options["embed_dim"], 1000))


def paddlevit(checkout: str, options: dict) -> nn.Layer:
    """PaddleViT's CycleMLP, whose CycleFC is a deformable convolution."""
    folder = Path(checkout) / "image_classification" / "CycleMLP"
    if not (folder / "cyclemlp.py").is_file():
        raise SystemExit(f"{checkout} has no image_classification/CycleMLP/cyclemlp.py; "
                         "expected a checkout of PaddleViT")
    sys.path.insert(0, str(folder))
    module = importlib.import_module("cyclemlp")
    return module.CycleNet(num_classes=1000, mlp_fn=module.CycleMLP, **options)


def main() -> None:
    """Read the set-up, then measure a step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    paddle.set_device("cpu")
    paddle.seed(0)
    network = (passl(setup["passl"], setup["options"]) if "passl" in setup
               else paddlevit(setup["paddlevit"], setup["options"]))
    trained = [p for p in network.parameters() if not p.stop_gradient]
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=trained)
    images = paddle.randn([setup["batch"], 3, setup["size"], setup["size"]])
    labels = paddle.randint(0, 1000, [setup["batch"]])

    def train() -> dict:
        clock = protocol.Clock()
        loss = nn.functional.cross_entropy(network(images), labels)
        clock.mark("forward")
        loss.backward()
        clock.mark("backward")
        optimizer.step()
        optimizer.clear_grad()
        clock.mark("optimiser")
        if not bool(paddle.isfinite(loss)):
            raise ArithmeticError(f"the loss is {float(loss)}")
        return {"parts": clock.parts}

    facts = {"images": setup["batch"], "parameters": int(sum(p.size for p in trained)),
             "versions": {"paddle": paddle.__version__}}
    channel.serve({"train": train}, {"train": facts})


if __name__ == "__main__":
    main()
