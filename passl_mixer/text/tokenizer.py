"""CLIP's byte-pair tokenizer: captions to token ids, from a file of merges.

The vocabulary is 256 bytes, the same 256 at the end of a word, one symbol a merge, and two marks for the start and the
end of a text: 49,408 with the published file. The file (``bpe_simple_vocab_16e6.txt`` or ``.txt.gz``) begins with a
version line. Then come two symbols a line, the most frequent pair first; 48,894 lines are used. Files of fewer merges,
as ``write_merges`` writes them, give smaller vocabularies.

Source: Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2021, arXiv:2103.00020, section 2.4; openai/CLIP
``simple_tokenizer.py``. ``words.py`` splits texts into words and has one deviation.
"""
import gzip
import zlib
from pathlib import Path
from typing import Sequence

import numpy as np

from passl_mixer.errors import BadInput
from passl_mixer.text.words import END, END_OF_TEXT, START_OF_TEXT, byte_letters, split_words

MAX_MERGES = 49152 - 256 - 2        # lines of the file that the official code reads
_REMEMBERED_WORDS = 1 << 18         # words whose tokens are cached; bounds the memory


def read_merges(path) -> list:
    """The pairs of a merges file, most frequent first.

    Args:
        path: text in CLIP's format, plain or compressed by gzip.
    Returns:
        At most 48,894 pairs of symbols.
    Raises:
        BadInput: no such file, not UTF-8, no version line, or a line without two symbols (with its number).
    """
    lines = _lines(Path(path))
    first = lines[0].split() if lines else []
    if not first or (len(first) == 2 and "version" not in lines[0]):
        raise BadInput(f"{path}, line 1: got {lines[0] if lines else 'nothing'!r}, expected a comment such as "
                       "'#version: 0.2', then one merge a line; put that line in front")
    merges = []
    for number, line in enumerate(lines[1:MAX_MERGES + 1], 2):
        pair = tuple(line.split())
        if len(pair) != 2:
            if not pair and not any(rest.strip() for rest in lines[number:]):
                break                                       # blank lines at the end
            raise BadInput(f"{path}, line {number}: got {line!r}, expected the two symbols of a merge with a blank "
                           "between; is this a file of byte-pair merges such as bpe_simple_vocab_16e6.txt.gz?")
        merges.append(pair)
    return merges


def _lines(path: Path) -> list:
    if not path.is_file():
        raise BadInput(f"no merges file {path.absolute()}; give the path of CLIP's bpe_simple_vocab_16e6.txt.gz, or "
                       "make one from the training captions: passl-mixer bpe CAPTIONS OUT --merges 1000 (a trained "
                       "model needs the file it was trained with)")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{path} is damaged: gzip says {error}; fetch it again") from None
    try:
        return content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise BadInput(f"{path}, line {line}: not UTF-8 text; expected one merge a line") from None


class Tokenizer:
    """Encodes captions as token ids.

    Args:
        merges: path of a merges file, see ``read_merges``.
        context_length: most tokens of a caption in a batch, both marks included; >= 3.
    Raises:
        BadInput: a merges file that cannot be used, or ``context_length`` too small.
    """

    def __init__(self, merges: str, *, context_length: int = 77):
        if context_length < 3:
            raise BadInput(f"context_length is {context_length}, expected 3 or more: a token between the two marks")
        pairs = read_merges(merges)
        letters = [letter for _, letter in byte_letters()]
        self._symbols = [*letters, *(c + END for c in letters), *("".join(p) for p in pairs), START_OF_TEXT,
                         END_OF_TEXT]
        self._ids = {symbol: i for i, symbol in enumerate(self._symbols)}
        self._ranks = {pair: i for i, pair in enumerate(pairs)}
        self._bytes = {letter: byte for byte, letter in byte_letters()}
        self._words: dict = {}
        self.context_length = context_length

    @property
    def vocab_size(self) -> int:
        """Number of tokens: 514 and the merges."""
        return len(self._symbols)

    @property
    def sot(self) -> int:
        """Id of the start mark."""
        return self.vocab_size - 2

    @property
    def eot(self) -> int:
        """Id of the end mark, the highest id."""
        return self.vocab_size - 1

    def encode(self, text: str) -> list:
        """Token ids of a text, without marks and of any length.

        Raises:
            BadInput: not a string.
        """
        if not isinstance(text, str):
            raise BadInput(f"a caption is {text!r}, expected a string")
        return [token for word in split_words(text) for token in self._tokens(word)]

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids of texts between their marks, int32 [N, context_length].

        Row i is ``sot, tokens of texts[i], eot, 0, 0, ...``; a text that is too long loses its last tokens, not the end
        mark.
        """
        rows = np.zeros([len(texts), self.context_length], np.int32)
        for row, text in zip(rows, texts):
            tokens = [self.sot, *self.encode(text)[:self.context_length - 2], self.eot]
            row[:len(tokens)] = tokens
        return rows

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, in lower case, words separated by blanks; ends at the first end mark.

        Raises:
            BadInput: an id outside the vocabulary.
        """
        symbols = []
        for token in map(int, ids):
            if not 0 <= token < self.vocab_size:
                raise BadInput(f"token id {token} is outside the vocabulary of {self.vocab_size}; it belongs to "
                               "another merges file")
            if token == self.eot:
                break
            symbols += [] if token == self.sot else [self._symbols[token]]
        content = bytearray()
        for symbol in symbols:
            content += bytes(self._bytes[letter] for letter in symbol.removesuffix(END))
            content += b" " if symbol.endswith(END) else b""
        return content.decode("utf-8", "replace").strip()

    def _tokens(self, word: tuple) -> list:
        known = self._words.get(word)
        if known is None:
            known = [self._ids[symbol] for symbol in merge(word, self._ranks)]
            if len(self._words) < _REMEMBERED_WORDS:
                self._words[word] = known
        return known


def merge(word: tuple, ranks: dict) -> list:
    """Symbols of a word after its merges: repeatedly the pair of the lowest rank, everywhere in the word.

    Args:
        word: its symbols, as from ``words.split_words``.
        ranks: pair of symbols -> its position in the file.
    """
    symbols = list(word)
    while len(symbols) > 1:
        best = min(zip(symbols, symbols[1:]), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        symbols = joined(symbols, best)
    return symbols


def joined(symbols: Sequence[str], pair: tuple) -> list:
    """Symbols with every occurrence of a pair, from the left, joined."""
    result, i = [], 0
    while i < len(symbols):
        hit = tuple(symbols[i:i + 2]) == pair
        result.append("".join(pair) if hit else symbols[i])
        i += 2 if hit else 1
    return result
