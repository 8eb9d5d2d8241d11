"""Ours against PyTorch in all its ways at once: all take turns, and the ratio is to the fastest of them."""
import statistics
from typing import Callable, Sequence

from bench.turns import Child, record, speed, spread, take_turns
from passl_mixer.errors import BadInput

WAYS = ("eager", "compile", "bf16", "compile and bf16")     # of ``tools/peers/torch_ways.py``


def same_network(row: Sequence[dict]) -> None:
    """Refuse to compare two networks.

    Args:
        row: answers of ours and of peers, with ``parameters``.
    Raises:
        BadInput: their numbers of parameters differ.
    """
    counts = [answer["parameters"] for answer in row]
    for count in counts[1:]:
        if count != counts[0]:
            raise BadInput(f"ours has {counts[0]} parameters and the peer's network {count}; expected the same network")


def sides(child: Child, step: str, ways: Sequence[str] = WAYS, suffix: str = "") -> dict:
    """The ways of a step of one peer process: what they are called, and functions that measure one step.

    Args:
        child: the process; its steps are called "step.way".
        step: the name before the dot.
        ways: those to measure.
        suffix: added to what the ways are called.
    """
    return {way + suffix: lambda w=way: child.step(f"{step}.{w}") for way in ways}


def compare(suite: str, case: str, ours: Callable[[], dict], peers: dict, repeats: int, *, peer: str) -> dict:
    """One record: the ratio to the way with the least median seconds, and under ``ways`` that to each.

    Args:
        suite, case: its name.
        ours: measures one step of ours.
        peers: name of a way to a function that measures one step of it.
        repeats: rounds measured.
        peer: what the peer is.
    Raises:
        BadInput: the networks are not the same.
    """
    rows = take_turns([ours, *peers.values()], repeats)
    same_network(rows[-1])
    columns = dict(zip(peers, range(1, len(peers) + 1)))
    seconds = {way: statistics.median(row[at]["seconds"] for row in rows) for way, at in columns.items()}
    fastest = min(seconds, key=seconds.get)
    made = record(suite, case, rows, peer=f"{peer}, fastest way", peer_at=columns[fastest])
    made["fastest"] = fastest
    made["ways"] = {way: {"seconds": float(f"{seconds[way]:.4g}"),
                          "ratio": spread([speed(row[0], row[at]) for row in rows])} for way, at in columns.items()}
    return made
