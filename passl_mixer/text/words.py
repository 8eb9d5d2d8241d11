"""Splitting of captions into words, and the representation of bytes as letters.

Source: Radford et al. 2021, arXiv:2103.00020, section 2.4; rules of the official code, openai/CLIP
``simple_tokenizer.py``. The printable letters for bytes are GPT-2's (openai/gpt-2 ``encoder.py``).
Deviation: ``<|startoftext|>`` and ``<|endoftext|>`` in a caption are plain text, so that a caption cannot end itself.
"""
import functools
import html
import importlib

from passl_mixer.errors import BadInput

END = "</w>"            # on the last symbol of a word
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"
# English contractions; letters of any script together; each digit alone; other signs together. Case does not count.
_WORD = r"'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def _import(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(f"captions need the package {name!r}, which is not installed; "
                       "pip install 'passl_mixer[clip]'") from None


@functools.cache
def _tools() -> tuple:
    regex = _import("regex")
    return _import("ftfy").fix_text, regex.compile(_WORD, regex.IGNORECASE)


@functools.cache
def byte_letters() -> tuple:
    """A printable character for each byte value, in the order of CLIP's vocabulary: ``((byte, character), ...)``.

    Bytes that are printable in Latin-1 come first and are unchanged; the others, in order, are U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return tuple([(b, chr(b)) for b in printable] + [(b, chr(0x100 + i)) for i, b in enumerate(others)])


def clean(text: str) -> str:
    """Repair broken Unicode, resolve HTML entities (twice, for web captions), normalise blanks, lower the case."""
    fix_text, _ = _tools()
    return " ".join(html.unescape(html.unescape(fix_text(text))).split()).lower()


def split_words(text: str) -> list:
    """The words of a caption as tuples of symbols, one for each byte, the last with ``</w>``.

    Args:
        text: any string.
    Raises:
        BadInput: ``ftfy`` or ``regex`` is not installed.
    """
    _, pattern = _tools()
    letters = _letters()
    return [tuple(letters[b] for b in word[:-1]) + (letters[word[-1]] + END,)
            for word in (w.encode("utf-8", "replace") for w in pattern.findall(clean(text)))]


@functools.cache
def _letters() -> dict:
    return dict(byte_letters())
