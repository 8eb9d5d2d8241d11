"""What the ways to run a network are worth: export, processes, batch, recomputation, CycleFC's shift, the CPU set-up.

Every suite takes the settings and yields records (``turns.record``).
"""
import contextlib
import socket
from typing import Optional

from bench.suites import Settings, batch_for, case_name, has_bf16, in_one_process, method_model, networks, ours, sized
from bench.turns import OURS, Child, record, take_turns, together


def export(settings: Settings):
    """The exported model's inference over our own eager forward, in one process; in bfloat16 too where oneDNN can."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = batch_for(settings, size)
        for step, words in (("exported", "exported"), ("exported_bf16", "exported in bf16"))[:1 + has_bf16()]:
            entry = {"backbone": backbone, "batch": batch, "size": size, "steps": [step, "infer"]}
            with networks(settings, {"a": entry}) as child:
                rows = in_one_process(settings, child, [f"a.{step}", "a.infer"])
            yield record("export", case_name(backbone["name"], words, batch, size), rows, peer="eager forward")


def _group(settings: Settings, entry: dict, count: int) -> list:
    """Processes that train together: gloo, one thread each, joined by what ``paddle.distributed.launch`` sets."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    endpoints = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [ours(settings, {"kind": "networks", "networks": {"a": entry}, "min_seconds": 0.0}, threads=1,
                 PADDLE_TRAINER_ID=str(rank), PADDLE_TRAINERS_NUM=str(count), PADDLE_MASTER=endpoints[0],
                 PADDLE_TRAINER_ENDPOINTS=",".join(endpoints), PADDLE_CURRENT_ENDPOINT=endpoint,
                 PADDLE_DISTRI_BACKEND="gloo") for rank, endpoint in enumerate(endpoints)]


def scaling(settings: Settings):
    """Two processes with one thread each over one process with two, same global batch: a training step."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = settings.batch or (16 if size > 64 else 256)
        entry = {"backbone": backbone, "size": size, "steps": ["train"]}
        with contextlib.ExitStack() as stack:
            pair = [stack.enter_context(c) for c in _group(settings, {**entry, "batch": batch // 2}, 2)]
            setup = {"kind": "networks", "networks": {"a": {**entry, "batch": batch}}, "min_seconds": 0.0}
            one = stack.enter_context(ours(settings, setup, threads=2))
            rows = take_turns([lambda p=pair: together(p, "a.train"), lambda o=one: o.step("a.train")],
                              settings.repeats)
        yield record("scaling", case_name(backbone["name"], "two processes", batch, size), rows,
                     peer="one process, two threads")


def growth(settings: Settings):
    """Time per image of a training step at four times the batch: 16 to 64, where 1.0 is flat."""
    for name in settings.backbones:
        backbone, size = sized(name)
        small = settings.batch or 16
        entry = {"backbone": backbone, "size": size, "steps": ["train"]}
        with networks(settings, {"large": {**entry, "batch": 4 * small}, "small": {**entry, "batch": small}}) as child:
            rows = in_one_process(settings, child, ["large.train", "small.train"])
        yield record("scaling", case_name(backbone["name"], "cost growth", 4 * small, size), rows,
                     peer=f"batch {small}", metric="time per image",
                     value=lambda a, b: a["seconds"] / b["seconds"] / 4)


def recompute(settings: Settings):
    """``train.recompute`` on over off: peak memory and time of a training step, each in a process of its own."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = settings.batch or 32
        entry = {"backbone": backbone, "batch": batch, "size": size, "steps": ["train"]}
        with networks(settings, {"a": {**entry, "recompute": True}}) as on, networks(settings, {"a": entry}) as off:
            rows = take_turns([lambda c=on: c.step("a.train"), lambda c=off: c.step("a.train")], settings.repeats)
        case = case_name(backbone["name"], "recompute", batch, size)
        for metric, key in (("peak memory", "peak_mib"), ("step time", "seconds")):
            yield record("recompute", case, rows, peer="off", metric=metric, value=lambda a, b, k=key: a[k] / b[k])


def _variant(settings: Settings, variant: str, step: str, what: str, peer: str, backbone: str, size: int):
    batch = batch_for(settings, size)
    entry = {"backbone": {"name": backbone}, "batch": batch, "size": size, "steps": [step]}
    with networks(settings, {"ours": entry, "other": {**entry, "variant": variant}}) as child:
        rows = in_one_process(settings, child, [f"ours.{step}", f"other.{step}"])
    return record("variants", case_name(backbone, what, batch, size), rows, peer=peer)


def variants(settings: Settings, *, backbone: str = "cycle_mlp_b1", size: int = 224, only: Optional[str] = None):
    """CycleMLP against itself with another map in the place of CycleFC, weights kept, in one process."""
    if only in (None, "deformable"):
        yield _variant(settings, "deformable", "train", "training step", "CycleFC by deform_conv2d", backbone, size)
    if only in (None, "plain"):
        yield _variant(settings, "plain", "infer", "inference", "CycleFC without its shifts", backbone, size)


CONVOLUTIONS = ("resnet", "conv_mixer", "conv_mlp")     # how backbones begin that train.channels_last turns


def _settings_worth_trying(device: str, backbone: str) -> dict:
    """What a case is called: its overrides."""
    found = {"train.compile": ["train.compile=true"], "train.recompute": ["train.recompute=true"]}
    if device == "gpu":
        alone = {"train.cuda_graphs": ["train.cuda_graphs=true"]}
        if backbone.startswith(CONVOLUTIONS):
            alone["train.channels_last"] = ["train.channels_last=true"]
        found.update({"bf16": ["train.precision=bf16"], **alone})
        found.update({f"bf16 and {key}": ["train.precision=bf16", *overrides] for key, overrides in alone.items()})
    return found


def ways(settings: Settings):
    """A SimCLR step of a whole run with a setting of ``train`` over one without, in one process."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = batch_for(settings, size)
        for what, overrides in _settings_worth_trying(settings.device, backbone["name"]).items():
            setup = {"kind": "runs", "model": method_model("simclr", backbone, size), "batch": batch, "size": size,
                     "runs": {"with": overrides, "without": []}}
            with ours(settings, setup) as child:
                rows = in_one_process(settings, child, ["with", "without"])
            yield record("ways", case_name(backbone["name"], f"{what}, simclr step", batch, size), rows,
                         peer="without")


def tuning(settings: Settings):
    """The CPU set-up on over off (``PASSL_MIXER_TUNE=0``): a training step, each in a process of its own."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = batch_for(settings, size)
        entry = {"backbone": backbone, "batch": batch, "size": size, "steps": ["train"]}
        setup = {"kind": "networks", "networks": {"a": entry}, "min_seconds": settings.min_seconds}
        # neither side is told a number of threads: choosing it is a part of the set-up
        with Child(OURS, setup) as on, Child(OURS, setup, changes={"PASSL_MIXER_TUNE": "0"}) as off:
            rows = take_turns([lambda c=on: c.step("a.train"), lambda c=off: c.step("a.train")], settings.repeats)
        yield record("tuning", case_name(backbone["name"], "training step", batch, size), rows, peer="set-up off")
