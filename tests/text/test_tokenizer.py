"""The tokenizer on small vocabularies with known results, the file format, and the tool that learns merges."""
import gzip
import subprocess
import sys

import numpy as np
import pytest

from passl_mixer.errors import BadInput
from passl_mixer.text import Tokenizer, train_bpe, words, write_merges
from passl_mixer.text.tokenizer import MAX_MERGES, read_merges

pytest.importorskip("ftfy")
pytest.importorskip("regex")

MERGES = [("l", "o"), ("lo", "w</w>"), ("e", "r</w>"), ("n", "e"), ("ne", "w"), ("c", "a"), ("ca", "t</w>")]
BYTES = {byte: i for i, (byte, _) in enumerate(words.byte_letters())}


@pytest.fixture
def small(tmp_path):
    write_merges(tmp_path / "merges.txt", MERGES)

    def make(**options):
        return Tokenizer(str(tmp_path / "merges.txt"), **options)

    return make


def symbol(text):
    """Id of one byte, or with a dot behind, of one byte at a word's end."""
    return BYTES[ord(text[0])] + (256 if text.endswith(".") else 0)


def test_the_alphabet_is_the_published_one():
    letters = words.byte_letters()
    assert sorted(b for b, _ in letters) == list(range(256))
    assert len({c for _, c in letters}) == 256
    assert letters[:3] == ((33, "!"), (34, '"'), (35, "#"))
    assert letters[94] == (161, "¡")
    assert letters[188] == (0, "Ā")
    assert dict(letters)[ord(" ")] == "Ġ"
    assert dict(letters)[ord("\n")] == "Ċ"


def test_known_results(small):
    tokenizer = small()
    assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot) == (521, 519, 520)
    first = 512
    assert tokenizer.encode("low") == [first + 1]
    assert tokenizer.encode("lower") == [first, symbol("w"), first + 2]
    assert tokenizer.encode("newer cat") == [first + 4, first + 2, first + 6]
    assert tokenizer.encode("LOW,  low\n") == [first + 1, symbol(",."), first + 1]
    assert tokenizer.encode("cat's 12") == [first + 6, symbol("'"), symbol("s."), symbol("1."), symbol("2.")]
    assert tokenizer.encode("") == tokenizer.encode(" \t\n") == []
    assert tokenizer.encode("cat &amp;amp; low") == tokenizer.encode("cat & low")
    assert tokenizer.encode("l\u00f6") == [symbol("l"), BYTES[0xC3], BYTES[0xB6] + 256]


def test_the_lowest_rank_goes_first_and_everywhere(tmp_path):
    write_merges(tmp_path / "m", [("b", "c"), ("a", "b"), ("a", "bc"), ("a", "a")])
    tokenizer = Tokenizer(str(tmp_path / "m"))
    assert tokenizer.encode("abcabd") == [514, 513, symbol("d.")]  # (b, c) before (a, b), which stood first
    assert tokenizer.encode("aaaab") == [515, 515, symbol("b.")]


def test_a_batch_has_its_marks(small):
    tokenizer = small(context_length=5)
    batch = tokenizer.encode_batch(["low", "low cat low low", "", "newer low"])
    sot, eot = tokenizer.sot, tokenizer.eot
    assert batch.dtype == np.int32
    assert batch.tolist() == [[sot, 513, eot, 0, 0], [sot, 513, 518, 513, eot], [sot, eot, 0, 0, 0],
                              [sot, 516, 514, 513, eot]]
    assert tokenizer.encode_batch([]).shape == (0, 5)
    assert small().encode_batch(["low"]).shape == (1, 77)


def test_a_caption_cannot_end_itself(small):
    tokenizer = small()
    ids = tokenizer.encode("cat <|endoftext|> low <|startoftext|>")
    assert not {tokenizer.sot, tokenizer.eot} & set(ids)
    assert tokenizer.decode(ids) == "cat <| endoftext |> low <| startoftext |>"


@pytest.mark.parametrize("text", [
    "a photo of a cat", "größe, naïve café", "日本語 テキスト", "привет мир", "😀 🏳 !", "नमस्ते", "x = 3 . 1 4"])
def test_round_trip(small, text):
    tokenizer = small()
    ids = tokenizer.encode(text)
    assert all(0 <= i < 512 + len(MERGES) for i in ids)
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == tokenizer.decode(ids)
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


def test_cut_characters_decode_to_the_replacement_sign(small):
    tokenizer = small()
    assert tokenizer.decode(tokenizer.encode("ö")[:1]) == "\ufffd"


def test_of_the_published_file_48894_merges_count(tmp_path):
    """Line 1 is a comment, lines 2 to 48895 are merges, what follows is not read, not even checked."""
    letters = [c for _, c in words.byte_letters()]
    pairs = [(a, b) for a in letters for b in letters][:MAX_MERGES]
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *(f"{a} {b}" for a, b in pairs), "beyond", ""]
    for name, content in (("m.txt", "\n".join(lines).encode()), ("m.txt.gz", gzip.compress("\n".join(lines).encode()))):
        (tmp_path / name).write_bytes(content)
        assert read_merges(tmp_path / name) == pairs
        tokenizer = Tokenizer(str(tmp_path / name))
        assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot) == (49408, 49406, 49407)
    assert tokenizer.encode("!!!") == [512, symbol("!.")]


@pytest.mark.parametrize(("content", "said"), [
    (b"#version: 0.2\na b\na\n", r"line 3: got 'a', expected the two symbols"),
    (b"#version: 0.2\na b c\n", r"line 2: got 'a b c'"),
    (b"#version: 0.2\n\na b\n", r"line 2: got ''"),
    (b"#version: 0.2\na b\n\xff\xfe a\n", r"line 3: not UTF-8"),
    (b"a b\nc d\n", r"line 1: got 'a b', expected a comment"),
    (b"", r"line 1: got ''"),
    (b"\x1f\x8bnothing", r"is damaged: gzip says"),
    (gzip.compress(b"#version: 0.2\na b\n" * 99)[:-12], r"is damaged: gzip says"),
])
def test_a_bad_file_is_named_with_its_line(tmp_path, content, said):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        Tokenizer(str(tmp_path / "bad.txt"))
    assert str(tmp_path / "bad.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_refused(small, tmp_path):
    with pytest.raises(BadInput, match=r"no merges file .*nowhere.txt; .*passl-mixer bpe"):
        Tokenizer(str(tmp_path / "nowhere.txt"))
    with pytest.raises(BadInput, match="context_length is 2"):
        small(context_length=2)
    with pytest.raises(BadInput, match="a caption is 7, expected a string"):
        small().encode_batch(["cat", 7])
    with pytest.raises(BadInput, match="token id 521 is outside"):
        small().decode([521])


def test_blank_lines_at_the_end_and_windows_line_ends_do_not_matter(tmp_path):
    (tmp_path / "m").write_bytes(b"#version: 0.2\r\na b\r\n\r\n\n")
    assert read_merges(tmp_path / "m") == [("a", "b")]


def test_a_missing_package_names_the_extra(monkeypatch):
    """Python's own import fails, as it does where the package is not installed."""
    words._tools.cache_clear()
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(BadInput, match=r"'ftfy', which is not installed; pip install 'passl_mixer\[clip\]'"):
        words.split_words("cat")
    monkeypatch.undo()
    assert words.split_words("cat") == [("c", "a", "t</w>")]


def test_neither_paddle_nor_the_packages_load_before_a_caption_does(small, tmp_path):
    code = ("import sys; from passl_mixer.text import Tokenizer; "
            f"Tokenizer({str(tmp_path / 'merges.txt')!r}) if len(sys.argv) else 0; "
            "print(sorted({'paddle', 'ftfy', 'regex'} & set(sys.modules)))")
    small()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def slow_train(texts, num_merges):
    """Count everything again after every merge."""
    found, split = [], [list(w) for t in texts for w in words.split_words(t)]
    while len(found) < num_merges:
        counts = {}
        for word in split:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda p: (-counts[p], p), default=None)
        if best is None or counts[best] < 2:
            break
        found += [] if best in found else [best]
        for word in split:
            for i in range(len(word)):
                if tuple(word[i:i + 2]) == best:
                    word[i:i + 2] = ["".join(best)]
    return found


CAPTIONS = ["a photo of a red shirt", "a photo of an ankle boot", "the photos: boots, shirts & bags", "a bag",
            "ankle deep in red boots", "shirt number 12 of 12", "mississippi", "aaaaa !!!! !!!"]


def test_training_is_the_algorithm_and_deterministic():
    merges = train_bpe(CAPTIONS, 20)
    assert merges == slow_train(CAPTIONS, 20)
    assert len(merges) == len(set(merges)) == 20
    assert train_bpe(reversed(CAPTIONS), 20) == merges
    assert train_bpe(CAPTIONS, 7) == merges[:7]
    everything = train_bpe(CAPTIONS, 1000)
    assert everything == slow_train(CAPTIONS, 1000)
    assert 20 < len(everything) < 1000
    assert train_bpe(["low low lower"], 9) == [("l", "o"), ("lo", "w</w>")]
    assert train_bpe(["cat"], 0) == []


def test_training_on_random_words_is_the_algorithm():
    draw = np.random.default_rng(0)
    texts = [" ".join("".join(draw.choice(list("ab"), draw.integers(1, 9))) for _ in range(6)) for _ in range(8)]
    assert train_bpe(texts, 60) == slow_train(texts, 60)


def test_learned_words_become_one_token(tmp_path):
    for name in ("m.txt", "m.txt.gz"):
        write_merges(tmp_path / name, train_bpe(CAPTIONS * 2, 1000))
        tokenizer = Tokenizer(str(tmp_path / name))
        assert [len(tokenizer.encode(word)) for word in ("photo", "ankle", "shirt", "mississippi")] == [1, 1, 1, 1]
        assert tokenizer.vocab_size == 514 + len(read_merges(tmp_path / name))
    first = (tmp_path / "m.txt.gz").read_bytes()
    write_merges(tmp_path / "m.txt.gz", read_merges(tmp_path / "m.txt"))
    assert (tmp_path / "m.txt.gz").read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.txt", "m.txt.gz"]


def test_training_refuses():
    with pytest.raises(BadInput, match="no word to learn"):
        train_bpe(["", "  "], 3)
    for number in (-1, MAX_MERGES + 1):
        with pytest.raises(BadInput, match="expected 0 to 48894"):
            train_bpe(["cat cat"], number)


def test_the_command(tmp_path, command):
    captions, out = tmp_path / "captions.txt", tmp_path / "merges.txt"
    captions.write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")
    assert "20 merges" in command("bpe", captions, out, "--merges", "20")
    assert read_merges(out) == train_bpe(CAPTIONS, 20)
    assert "exists" in command.refused("bpe", captions, out, "--merges", "20")
    captions.write_bytes(b"a cat\n\xff\xfe\n")
    assert f"{captions}, line 2: not UTF-8" in command.refused("bpe", captions, tmp_path / "other", "--merges", "4")
    assert "no captions at" in command.refused("bpe", tmp_path / "none", tmp_path / "other", "--merges", "4")
    assert not (tmp_path / "other").exists()
