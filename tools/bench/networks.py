"""Steps of one network in a process of ours: inference, a training step by parts, and the machine's matrix products.

A network is an object of the set-up: ``backbone`` (an entry of the registry), ``batch``, ``size`` (pixels), and
optionally ``variant`` (see ``variants.py``), ``recompute`` (boolean), ``data`` (whether a training step begins with
uint8 pictures), ``precision`` ("fp32" or "bf16", of forward passes; left out: bf16 on GPUs only). The head is linear,
1000 classes; training is supervised, with AdamW.
"""
import time

import numpy as np
import paddle
from paddle import nn
from peers.protocol import Clock

from bench.variants import replace_cycle_fc
from passl_mixer import build_backbone, build_head, build_method, distributed
from passl_mixer.autocast import autocast_dtype
from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.images import to_images
from passl_mixer.layers.basic import TokenLinear
from passl_mixer.layers.recompute import set_recompute
from passl_mixer.ops import bfloat16
from passl_mixer.surgery.macs import count_macs, count_parameters
from passl_mixer.training.optim import build_optimizer
from passl_mixer.training.precision import Precision

NUM_CLASSES, SQUARE, TRIES = 1000, 2048, 3
# Multiply-accumulates of a training step over those of its forward pass: every weight takes part in two more products.
BACKWARD = 3
NORMALISATION = ((0.5,) * 3, (0.5,) * 3)          # mean, std


class Network:
    """A backbone with its head, optimiser and a batch of random pictures.

    Args:
        entry: the set-up's object.
        device: as ``select_device`` returned it.
    """

    def __init__(self, entry: dict, device: str):
        self.entry, self.device = entry, device
        self.backbone = build_backbone(entry["backbone"])
        self.head = build_head({"name": "linear", "num_classes": NUM_CLASSES}, self.backbone.num_features)
        size, batch = entry["size"], entry["batch"]
        macs = count_macs(self.backbone, size) + self.backbone.num_features * NUM_CLASSES
        self.flop = 2 * macs * batch
        self.facts = {"images": batch, "parameters": count_parameters(self.backbone) + count_parameters(self.head)}
        replace_cycle_fc(self.backbone, entry.get("variant"))
        set_recompute(self.backbone, entry.get("recompute", False))
        self.method = build_method("supervised", self.backbone, self.head)
        asked = entry.get("precision", "bf16" if device != "cpu" else "fp32")
        self.precision = Precision(autocast_dtype(asked, device))
        self.facts["precision"] = self.precision.dtype or "float32"
        draw = np.random.default_rng(0)
        self.pictures = draw.integers(0, 256, [batch, size, size, 3], dtype=np.uint8)
        self.images = to_images(self.pictures, *NORMALISATION)
        self.labels = paddle.to_tensor(draw.integers(0, NUM_CLASSES, [batch]))
        self._optimizer = None

    def wait(self) -> None:
        """Return when the device has done its work."""
        if self.device != "cpu":
            paddle.device.synchronize()

    @paddle.no_grad()
    def infer(self) -> None:
        """Scores of the batch."""
        self.method.eval()
        with self.precision.autocast():
            self.head(self.backbone(self.images))
        self.wait()

    def train(self) -> dict:
        """One optimiser step; its parts."""
        self.method.train()
        if self._optimizer is None:
            self._optimizer = build_optimizer({"name": "adamw"}, self.method.trainable_parameters())
        clock, images = Clock(self.wait), self.images
        if self.entry.get("data"):
            images = to_images(self.pictures, *NORMALISATION)
            clock.mark("data")
        with self.precision.autocast():
            loss = self.method([images], self.labels)["loss"]
        clock.mark("forward")
        loss.backward()
        clock.mark("backward")
        if distributed.world_size() > 1:
            distributed.average_gradients([p for _, p in self.method.trainable_parameters()])
            clock.mark("exchange")
        self._optimizer.step(1e-3)
        self._optimizer.clear_grad()
        clock.mark("optimiser")
        self.method.after_step(0, 2)
        clock.mark("after_step")
        if not np.isfinite(float(loss)):
            raise ArithmeticError(f"the loss of {self.entry} is {float(loss)}")
        return {"parts": clock.parts}

    def exported_bf16(self):
        """As ``exported``, with products in bfloat16."""
        return self.exported("bf16", tolerance=0.05)

    def exported(self, precision: str = "fp32", tolerance: float = 1e-3):
        """The same inference by the exported model, as a step; scores agree to ``tolerance`` of the largest."""
        from bench.exporting import exported

        self.method.eval()
        for parameter in self.head.parameters():        # zeros at first, and of zeros any two models agree
            parameter.set_value(0.02 * paddle.randn(parameter.shape))
        predict = exported(self.method, self.entry["backbone"], self.entry["size"], NUM_CLASSES, precision)
        images = self.images.numpy()
        self._same(predict(images), tolerance)

        def step() -> None:
            predict(images)
        return step

    @paddle.no_grad()
    def _same(self, scores, tolerance: float) -> None:
        expected = self.head(self.backbone(self.images)).numpy()
        if not np.allclose(scores, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()):
            raise ArithmeticError(f"the exported {self.entry['backbone']['name']} computes something else")

    def largest_product(self) -> tuple:
        """``(rows, inner, columns)`` of the largest matrix product of the forward pass over this batch."""
        found = []

        def record(layer, inputs, output):
            out, weight = list(output.shape), list(layer.weight.shape)
            if isinstance(layer, nn.Conv2D):
                rows, inner, columns = out[0] * out[2] * out[3], int(np.prod(weight[1:])), weight[0]
            elif isinstance(layer, TokenLinear):
                rows, inner, columns = weight[0], weight[1], out[0] * out[2]
            else:
                rows, inner, columns = int(np.prod(out[:-1])), weight[0], weight[1]
            found.append((rows, inner, columns))

        kinds = (nn.Conv2D, nn.Linear, TokenLinear, CycleFC)
        handles = [layer.register_forward_post_hook(record) for layer in self.backbone.sublayers()
                   if isinstance(layer, kinds)]
        with paddle.no_grad():
            self.backbone(self.images)
        for handle in handles:
            handle.remove()
        return max(found, key=np.prod)

    def peak(self):
        """The machine's matrix products, as a step: the best of several of a square and of the network's largest."""
        shapes = [(SQUARE, SQUARE, SQUARE), self.largest_product()]
        product, dtype = product_of(self.precision, self.device)
        pairs = [(paddle.randn([m, k]).astype(dtype), paddle.randn([k, n]).astype(dtype)) for m, k, n in shapes]

        def step() -> dict:
            rates = []
            for a, b in pairs * TRIES:
                self.wait()
                started = time.perf_counter()
                product(a, b)
                self.wait()
                rates.append(2 * a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - started))
            return {"seconds": 1.0, "flop": max(rates)}
        return step


def product_of(precision: Precision, device: str) -> tuple:
    """``(product of two matrices, dtype of the matrices)`` that the peak is measured with.

    On a CPU the product in bfloat16 is the one that the networks' are made of, its result in float32.

    Args:
        precision: of the networks beside it.
        device: as ``select_device`` returned it.
    """
    if device != "cpu":
        return paddle.matmul, precision.dtype or "float32"
    if precision.dtype is None:
        return paddle.matmul, "float32"

    return bfloat16.product, "bfloat16"


def network_steps(setup: dict, device: str) -> tuple:
    """``(steps, facts)`` of the set-up's ``networks``: for a network "a" with step "train", "a.train"."""
    steps, facts = {}, {}
    for key, entry in setup["networks"].items():
        network = Network(entry, device)
        for name in entry["steps"]:
            made = getattr(network, name)
            steps[f"{key}.{name}"] = made() if name in ("peak", "exported", "exported_bf16") else made
            facts[f"{key}.{name}"] = {} if name == "peak" else {
                **network.facts, "flop": network.flop * (BACKWARD if name == "train" else 1)}
            if name == "exported_bf16":
                facts[f"{key}.{name}"]["precision"] = "bfloat16"
    return steps, facts
