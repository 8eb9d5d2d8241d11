"""Training of a vocabulary: byte-pair merges from captions (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1).

Deterministic: of equally frequent pairs the alphabetically first is merged, for any order of the captions.
"""
import gzip
import heapq
from collections import Counter, defaultdict
from pathlib import Path
from typing import Iterable, Sequence

from passl_mixer.errors import BadInput
from passl_mixer.files import write_atomic
from passl_mixer.text.tokenizer import MAX_MERGES, joined
from passl_mixer.text.words import split_words

VERSION = "#version: 0.2 passl_mixer"


def train_bpe(texts: Iterable[str], num_merges: int) -> list:
    """Learn merges from captions.

    Args:
        texts: captions.
        num_merges: number of merges, 0 to 48,894; fewer are returned if no pair is left that occurs twice.
    Returns:
        Pairs of symbols, in the order of their application.
    Raises:
        BadInput: ``num_merges`` out of range, or captions without a word.
    """
    if not 0 <= num_merges <= MAX_MERGES:
        raise BadInput(f"the number of merges is {num_merges}, expected 0 to {MAX_MERGES}")
    counted = Counter(word for text in texts for word in split_words(text))
    if not counted:
        raise BadInput("the captions hold no word to learn from")
    words, times = [list(word) for word in counted], list(counted.values())
    counts, places = Counter(), defaultdict(set)            # of every pair: occurrences, and indices of its words
    for index, word in enumerate(words):
        _count(word, times[index], counts)
        for pair in zip(word, word[1:]):
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: dict = {}                                       # in order
    while heap and len(merges) < num_merges:
        count, pair = heapq.heappop(heap)
        if counts[pair] != -count:                          # an entry from before a merge
            continue
        if -count < 2:
            break
        # Two merges may produce the same symbol, and with it a pair that was merged before; one entry is enough.
        merges[pair] = None
        changed = {pair}
        for index in places.pop(pair):
            changed |= _replace(words, index, times[index], pair, counts, places)
        for other in changed:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return list(merges)


def _count(word: list, times: int, counts: Counter) -> None:
    for pair in zip(word, word[1:]):
        counts[pair] += times


def _replace(words: list, index: int, times: int, pair: tuple, counts: Counter, places: dict) -> set:
    """Apply a merge in one word and update the counts; returns the pairs whose counts changed."""
    old, new = words[index], joined(words[index], pair)
    _count(old, -times, counts)
    _count(new, times, counts)
    words[index] = new
    for other in zip(new, new[1:]):
        places[other].add(index)
    return {*zip(old, old[1:]), *zip(new, new[1:])}


def write_merges(path, merges: Sequence[tuple]) -> None:
    """Write merges in CLIP's file format, atomically; compressed if the name ends in ``.gz``.

    Args:
        path: the file; an old one is replaced.
        merges: pairs of symbols, as ``train_bpe`` returns them.
    """
    path = Path(path)
    content = "".join(f"{line}\n" for line in (VERSION, *(f"{a} {b}" for a, b in merges))).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
