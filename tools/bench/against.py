"""Ours against peers: a process of the peer's environment takes turns with one of ours. Yields records, as suites do.

Peers are timm, torchvision and lightly on PyTorch, two networks written for PyTorch here (``tools/peers``), and PASSL
and PaddleViT from a checkout. Networks must have equally many parameters, or the comparison is refused. PyTorch runs a
network in four ways (``four_ways.py``); ours is in the precision of ``--precision``, ``auto`` where none is given.
"""
import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Sequence

from bench import four_ways, pictures
from bench.suites import (
    JPEGS_A_STEP,
    WORDS,
    Settings,
    batch_for,
    case_name,
    jpegs,
    networks,
    ours,
    precision_of,
    sized,
    views_child,
)
from bench.turns import PEERS, Child, record, take_turns
from passl_mixer.errors import BadInput, nearest
from passl_mixer.runtime import available_cores

TIMM = {"mlp_mixer_s32": "mixer_s32_224", "mlp_mixer_s16": "mixer_s16_224", "mlp_mixer_b32": "mixer_b32_224",
        "mlp_mixer_b16": "mixer_b16_224", "mlp_mixer_l32": "mixer_l32_224", "mlp_mixer_l16": "mixer_l16_224",
        "resmlp_s12": "resmlp_12_224", "resmlp_s24": "resmlp_24_224", "resmlp_s36": "resmlp_36_224",
        "resmlp_b24": "resmlp_big_24_224", "gmlp_ti16": "gmlp_ti16_224", "gmlp_s16": "gmlp_s16_224",
        "gmlp_b16": "gmlp_b16_224", "conv_mixer_1536_20": "convmixer_1536_20", "conv_mixer_768_32": "convmixer_768_32",
        "conv_mixer_1024_20": "convmixer_1024_20_ks9_p14", "vit_ti_16": "vit_tiny_patch16_224",
        "vit_s_16": "vit_small_patch16_224", "vit_b_16": "vit_base_patch16_224",
        "swin_t": "swin_tiny_patch4_window7_224", "resnet18": "resnet18", "resnet50": "resnet50"}
CONVOLUTIONAL = ("conv_mixer", "conv_mlp", "cycle_mlp", "resnet")       # PyTorch tries both memory layouts for these
NANO = {"img_size": 32, "patch_size": 4, "num_blocks": 4, "embed_dim": 128}
B16 = {"img_size": 224, "patch_size": 16, "num_blocks": 12, "embed_dim": 768}
CYCLE_B1 = {"layers": [2, 2, 4, 2], "embed_dims": [64, 128, 320, 512], "patch_size": 7, "transitions": [True] * 4,
            "mlp_ratios": [4] * 4}
SIMCLR_BATCH, WORKERS, TEMPERATURE, HIDDEN, OUT, STRENGTH, PICTURES = 256, (1, 2), 0.5, 512, 128, 0.5, 2048


def _python(settings: Settings) -> str:
    if not settings.peer_python:
        raise BadInput("this peer needs PyTorch, and no interpreter that has it was given; expected "
                       "--peer-python /path/to/python of an environment with torch, timm, torchvision, "
                       "albumentations and faiss-cpu")
    return settings.peer_python


def _compare(settings: Settings, suite: str, peer: str, backbone: dict, size: int, network: dict, steps: Sequence[str]):
    """Records of ``steps`` ("infer", "train") of a backbone of ours and of a network on PyTorch, in all its ways."""
    batch, python = batch_for(settings, size), _python(settings)
    for step in steps:
        entry = {"backbone": backbone, "batch": batch, "size": size, "steps": [step],
                 "precision": precision_of(settings, "auto")}
        setup = {"network": network, "steps": [step], "ways": list(four_ways.WAYS), "batch": batch, "size": size,
                 "convolutional": backbone["name"].startswith(CONVOLUTIONAL), "threads": settings.threads,
                 "min_seconds": settings.min_seconds}
        with networks(settings, {"a": entry}) as mine, Child(PEERS / "torch_step.py", setup, python=python) as other:
            yield four_ways.compare(suite, case_name(backbone["name"], WORDS[step], batch, size),
                                    lambda s=step, m=mine: m.step(f"a.{s}"), four_ways.sides(other, step),
                                    settings.repeats, peer=peer)


def timm(settings: Settings, steps: Sequence[str] = ("infer", "train")):
    """timm's networks on PyTorch: the named backbones it has (and a Mixer of the nano's sizes)."""
    known = [n for n in settings.backbones if sized(n)[0]["name"] in (*TIMM, "mlp_mixer_nano")]
    if not known:
        raise BadInput(f"timm has none of {', '.join(settings.backbones)}{nearest(settings.backbones[0], TIMM)}")
    for name in known:
        backbone, size = sized(name)
        timms = TIMM.get(backbone["name"])
        network = {"timm": timms} if timms else {"mixer": {**NANO, "num_classes": 1000}}
        yield from _compare(settings, "timm", "timm on PyTorch", backbone, size, network, steps)


def torch_cycle(settings: Settings, names: Sequence[str] = ("cycle_mlp_b1", "conv_mlp_s")):
    """CycleMLP-B1 and ConvMLP-S written for PyTorch in ``tools/peers/torch_networks.py``: training steps."""
    for name in names:
        yield from _compare(settings, "torch_cycle", "the same on PyTorch", {"name": name}, 224, {"own": name},
                            ("train",))


def _checkout(settings: Settings, name: str) -> str:
    if name not in settings.checkouts:
        raise BadInput(f"no checkout of {name} was given; expected --against {name}:/path/to/checkout")
    return settings.checkouts[name]


def _untuned(settings: Settings, suite: str, peer: str, name: str, setup: dict):
    """The record of a training step of a backbone and of a network on Paddle as it comes."""
    batch = batch_for(settings, 224)
    entry = {"backbone": {"name": name}, "batch": batch, "size": 224, "steps": ["train"],
             "precision": precision_of(settings, "fp32")}
    setup = {"batch": batch, "size": 224, "min_seconds": settings.min_seconds, **setup}
    with networks(settings, {"a": entry}) as mine, Child(PEERS / "paddle_checkout.py", setup) as other:
        rows = take_turns([lambda: mine.step("a.train"), lambda: other.step("train")], settings.repeats)
    four_ways.same_network(rows[-1])
    yield record(suite, case_name(name, "training step", batch, 224), rows, peer=peer)


def passl(settings: Settings):
    """PASSL's MlpMixer at B/16, on Paddle as it comes: a training step."""
    yield from _untuned(settings, "passl", "PASSL's MlpMixer, Paddle untuned", "mlp_mixer_b16",
                        {"passl": _checkout(settings, "passl"), "options": B16})


def paddlevit(settings: Settings):
    """PaddleViT's CycleMLP-B1 (deformable convolutions), on Paddle as it comes: a training step."""
    yield from _untuned(settings, "paddlevit", "PaddleViT's CycleMLP, Paddle untuned", "cycle_mlp_b1",
                        {"paddlevit": _checkout(settings, "paddlevit"), "options": CYCLE_B1})


def lightly(settings: Settings):
    """A SimCLR step of a Mixer of the nano's sizes at 32 px, views included: timm, torchvision, lightly's NT-Xent.

    Ours makes views on one thread beside the step; PyTorch is measured with one worker process and with two.
    """
    batch = settings.batch or SIMCLR_BATCH
    size = NANO["img_size"]
    with tempfile.TemporaryDirectory(prefix="passl_mixer_pictures_") as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "pictures.npy"
        pictures.write_small(file, min(PICTURES, 4 * batch), size)
        common = {"pictures": str(file), "batch": batch, "min_seconds": 2 * settings.min_seconds}
        model = {"backbone": {"name": "mlp_mixer_nano"}, "method": {"name": "simclr", "temperature": TEMPERATURE},
                 "head": {"name": "mlp", "layers": 2, "hidden": HIDDEN, "out": OUT, "norm": "bn"}}
        views = {"name": "simclr", "style": "torchvision", "img_size": size, "jitter_strength": STRENGTH, "blur_p": 0.0}
        other = {"mixer": NANO, "hidden": HIDDEN, "out": OUT, "temperature": TEMPERATURE, "jitter_strength": STRENGTH,
                 "size": size, "threads": settings.threads, "ways": list(four_ways.WAYS)}
        mine = stack.enter_context(ours(settings, {"kind": "simclr", "model": model, "views": views, "workers": 1,
                                                   "precision": precision_of(settings, "auto"), **common}))
        peers = {}
        for workers in WORKERS:
            child = Child(PEERS / "torch_simclr.py", {**other, **common, "workers": workers}, python=_python(settings))
            peers.update(four_ways.sides(stack.enter_context(child), "step", suffix=f", {workers} worker(s)"))
        yield four_ways.compare("lightly", case_name("mlp_mixer_nano", "simclr step with views", batch, size),
                                mine.step, peers, settings.repeats,
                                peer="timm, torchvision v2 and NT-Xent on PyTorch")


# what takes turns with our views: its name, script and set-up
VIEWS_PEERS = {"pil": ("torchvision v2 on PIL", "torchvision_views.py", {"on": "pil"}),
               "tensor": ("torchvision v2 on tensors", "torchvision_views.py", {"on": "tensor"}),
               "albumentations": ("albumentations", "albumentations_views.py", {})}


def _views(settings: Settings, suite: str, recipes: Sequence[str], peers: Sequence[str]):
    """Two views at 224 px of 500x375 JPEG files, one thread: a record a peer, and one against the fastest."""
    with jpegs() as (folder, files):
        for recipe in recipes:
            setup = {"recipe": recipe, "files": files, "size": 224, "images": JPEGS_A_STEP}
            style = {"style": "torchvision"} if recipe in ("simclr", "byol") else {}
            with contextlib.ExitStack() as stack:
                sides = [stack.enter_context(views_child(settings, folder, {"name": recipe, **style}))]
                for peer in peers:
                    _, script, more = VIEWS_PEERS[peer]
                    sides.append(stack.enter_context(Child(PEERS / script, {**setup, **more},
                                                           python=_python(settings))))
                rows = take_turns([side.step for side in sides], settings.repeats)
            case = f"{recipe}, 500x375 JPEG to 224 px, one thread"
            for at, peer in enumerate(peers, 1):
                yield record(suite, case, rows, peer=VIEWS_PEERS[peer][0], peer_at=at,
                             metric=f"speed against {VIEWS_PEERS[peer][0]}" if len(peers) > 1 else "speed")
            if len(peers) > 1:
                at = min(range(1, len(sides)), key=lambda i: statistics.median(row[i]["seconds"] for row in rows))
                yield record(suite, case, rows, peer=VIEWS_PEERS[peers[at - 1]][0], peer_at=at,
                             metric="speed against the fastest")


def torchvision(settings: Settings, recipes: Sequence[str] = ("simclr", "moco_v2", "byol")):
    """Views against torchvision v2 transforms on PIL images."""
    yield from _views(settings, "torchvision", recipes, ("pil",))


def albumentations(settings: Settings, recipes: Sequence[str] = ("simclr", "moco_v2", "byol")):
    """Views against albumentations on arrays of OpenCV."""
    yield from _views(settings, "albumentations", recipes, ("albumentations",))


def views_peers(settings: Settings, recipes: Sequence[str] = ("simclr", "moco_v2")):
    """Views against torchvision v2 on PIL images and on tensors, and albumentations; all take turns."""
    yield from _views(settings, "views_peers", recipes, ("pil", "tensor", "albumentations"))


BANKS = ((50_000, 384, 10_000), (1_000_000, 768, 1_000))        # features of the bank, their width, queries


def faiss(settings: Settings, banks: Sequence[tuple] = BANKS, k: int = 20):
    """Exact search for the k nearest features against faiss' ``IndexFlatIP``; the large bank takes 3 GB a side."""
    for bank, width, queries in banks:
        setup = {"bank": bank, "width": width, "queries": queries, "k": k}
        with ours(settings, {"kind": "search", "device": "cpu", **setup}) as mine, \
                Child(PEERS / "faiss_search.py", {**setup, "threads": settings.threads},
                      python=_python(settings)) as peer:
            rows = take_turns([mine.step, peer.step], settings.repeats)
        _same_neighbours(*rows[-1])
        yield record("search", f"{k} nearest of {bank:,} features of {width} for {queries:,} queries", rows,
                     peer="faiss IndexFlatIP")


def _same_neighbours(mine: dict, other: dict) -> None:
    """Both sides found the same rows; a few of equal similarity, to rounding, may be in another order."""
    for fact, share in (("similarities", 1e-5), ("rows", 1e-4)):
        if abs(mine[fact] - other[fact]) > share * abs(other[fact]):
            raise BadInput(f"the sum of {fact} is {mine[fact]} with ours and {other[fact]} with the peer; expected the "
                           "same neighbours")


AGAINST = {"timm": timm, "torch_cycle": torch_cycle, "lightly": lightly, "torchvision": torchvision,
           "albumentations": albumentations, "views_peers": views_peers, "faiss": faiss, "passl": passl,
           "paddlevit": paddlevit}
NEEDS_CHECKOUT = ("passl", "paddlevit")


def parse(texts: Sequence[str]) -> tuple:
    """``(names, {name: checkout})`` of what ``--against`` was given: "timm", "passl:/path".

    Raises:
        BadInput: an unknown peer, or a checkout that is missing or not wanted.
    """
    names, checkouts = [], {}
    for text in texts:
        name, colon, path = text.partition(":")
        if name not in AGAINST:
            raise BadInput(f"unknown peer {name!r}{nearest(name, AGAINST)}")
        if bool(colon) != (name in NEEDS_CHECKOUT):
            expected = f"{name}:/path/to/checkout" if name in NEEDS_CHECKOUT else name
            raise BadInput(f"--against {text}: expected --against {expected}")
        if colon and not Path(path).is_dir():
            raise BadInput(f"--against {text}: there is no folder {path}; expected a checkout of {name}")
        names.append(name)
        checkouts.update({name: str(Path(path).absolute())} if colon else {})
    return names, checkouts


def threads_for(asked) -> int:
    """Threads of both sides: what was asked for, or the physical cores."""
    return asked or available_cores()
