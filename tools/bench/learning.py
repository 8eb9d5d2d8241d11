"""Steps of self-supervised methods in a process of ours: on random batches by parts, on a loader, and views alone."""
import threading
import time

import cv2
import numpy as np
import paddle
from peers.protocol import Clock

from passl_mixer import build_method
from passl_mixer.autocast import autocast_dtype
from passl_mixer.data import Loader, build_dataset, build_views
from passl_mixer.data.loader import PREFETCH_BATCHES
from passl_mixer.images import to_images
from passl_mixer.surgery.macs import count_parameters
from passl_mixer.training.optim import build_optimizer
from passl_mixer.training.precision import Precision

ROUNDS = 400            # batches in the epoch of a loader: more than a measurement asks for


def method_steps(setup: dict) -> tuple:
    """``(steps, facts)``: "step", an optimiser step of a method; "bare", its backbone on the two views and back.

    Args:
        setup: ``model`` (a configuration's section), ``batch``, ``size`` in pixels.
    """
    method = build_method(setup["model"])
    optimizer = build_optimizer({"name": "adamw"}, method.trainable_parameters())
    batch, size = setup["batch"], setup["size"]
    views = [paddle.randn([batch, 3, size, size]) for _ in range(2)]
    projection = paddle.randn([method.backbone.num_features, 1])

    def bare():
        paddle.matmul(method.backbone(paddle.concat(views)), projection).mean().backward()
        optimizer.clear_grad()

    facts = {"images": batch, "parameters": count_parameters(method.backbone)}
    plain = Precision(None)
    return ({"step": lambda: _step(method, optimizer, views, Clock(), plain), "bare": bare},
            {"step": facts, "bare": facts})


def _step(method, optimizer, views, clock: Clock, precision: Precision) -> dict:
    with precision.autocast():
        loss = method(views)["loss"]
    clock.mark("forward")
    loss.backward()
    clock.mark("backward")
    optimizer.step(1e-3)
    optimizer.clear_grad()
    clock.mark("optimiser")
    method.after_step(0, 2)
    clock.mark("after_step")
    if not np.isfinite(float(loss)):
        raise ArithmeticError(f"the loss of {type(method).__name__} is {float(loss)}")
    return {"parts": clock.parts}


class Counted:
    """Pictures of a file (.npy, uint8 [N, S, S, 3]) again and again, counted when they are asked for."""

    labels = None

    def __init__(self, path: str, length: int):
        self._pictures, self._length, self._lock = np.load(path, allow_pickle=False), length, threading.Lock()
        self.asked = 0

    def __len__(self):
        return self._length

    def image(self, index: int):
        """Picture ``index`` modulo their number."""
        with self._lock:
            self.asked += 1
        return self._pictures[index % len(self._pictures)]


class OnLoader:
    """A method trained from a loader, views included.

    A step ends when the loader's workers have made as many views as they had when it began: what they prepare while the
    other side is measured would be a gift.

    Args:
        setup: ``model`` (a configuration's section), ``views`` (entry of a recipe), ``pictures`` (file of ``Counted``),
            ``batch``, ``workers``, ``precision`` ("fp32" or "bf16").
        device: as ``select_device`` returned it.
    """

    def __init__(self, setup: dict, device: str):
        self.precision = Precision(autocast_dtype(setup["precision"], device))
        self.method, self.batch = build_method(setup["model"]), setup["batch"]
        self.optimizer = build_optimizer({"name": "adamw"}, self.method.trainable_parameters())
        self.dataset, self.views = Counted(setup["pictures"], self.batch * ROUNDS), build_views(setup["views"])
        loader = Loader(self.dataset, self.views, batch_size=self.batch, seed=0, num_workers=setup["workers"],
                        shuffle=True, drop_last=True)
        self.ahead = PREFETCH_BATCHES if setup["workers"] else 0
        self.batches, self.done = loader.epoch(0), 0

    def step(self) -> dict:
        """One optimiser step; its parts."""
        clock = Clock()
        pair, _ = next(self.batches)
        images = [to_images(view, self.views.mean, self.views.std) for view in pair]
        clock.mark("data")
        _step(self.method, self.optimizer, images, clock, self.precision)
        self.done += 1
        while self.dataset.asked < (self.done + self.ahead) * self.batch:
            time.sleep(0.0005)
        clock.mark("data")
        return {"parts": clock.parts}


def simclr_steps(setup: dict, device: str) -> tuple:
    """``(steps, facts)``: "step", one of ``OnLoader``, whose arguments these are."""
    training = OnLoader(setup, device)
    trained = count_parameters(training.method.backbone) + count_parameters(training.method.head)
    return {"step": training.step}, {"step": {"images": training.batch, "parameters": trained,
                                              "precision": training.precision.dtype or "float32"}}


def views_steps(setup: dict) -> tuple:
    """``(steps, facts)``: "step", some JPEG files to the float32 tensors of their views, on one thread.

    Args:
        setup: ``folder`` of the files, ``views`` (entry of a recipe), ``images`` per step.
    """
    cv2.setNumThreads(0)
    dataset = build_dataset({"name": "image_folder", "root": setup["folder"], "labelled": False})
    views, epoch = build_views(setup["views"]), 0
    loader = Loader(dataset, views, batch_size=setup["images"], seed=0, num_workers=0, shuffle=True, drop_last=True)
    batches = loader.epoch(epoch)

    def step() -> None:
        nonlocal batches, epoch
        pictures = next(batches, None)
        if pictures is None:
            epoch += 1
            batches = loader.epoch(epoch)
            pictures = next(batches)
        for view in pictures[0]:
            to_images(view, views.mean, views.std)

    return {"step": step}, {"step": {"images": setup["images"]}}
