"""Images with captions, written to real files in four layouts and read back; what is wrong with them is said."""
import io
import json
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.data import loader_of

from passl_mixer.data import build_dataset, check_dataset
from passl_mixer.data.captions import read_table
from passl_mixer.data.embedded_captions import MERGES, make_caption
from passl_mixer.data.shards import expand
from passl_mixer.data.vocabulary import build_tokenizer, captions_at
from passl_mixer.errors import BadInput
from passl_mixer.text import Tokenizer, train_bpe

WORDS = ["a red square", "zwei Füße", "one sandal", "a \"quoted\", long\ncaption"]
pytest.importorskip("ftfy")
pytest.importorskip("regex")


def png(value) -> bytes:
    return cv2.imencode(".png", np.full((6, 8, 3), value, np.uint8))[1].tobytes()


def write_folder(root, captions=WORDS):
    for i, caption in enumerate(captions):
        path = root / f"part_{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(10 * i))
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return {"name": "image_text_folder", "root": str(root)}


def write_images(root):
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for i in range(len(WORDS)):
        (root / "pictures" / f"{i}.png").write_bytes(png(10 * i))


def write_table(root, name="captions.csv", delimiter=",", encoding="utf-8", captions=WORDS):
    write_images(root)
    rows = [f"id{delimiter}image{delimiter}caption"]
    rows += [delimiter.join((str(i), f"pictures/{i}.png", '"' + c.replace('"', '""') + '"'))
             for i, c in enumerate(captions)]
    (root / name).write_bytes(("\r\n".join(rows) + "\r\n").encode(encoding))
    return {"name": "image_text_table", "file": str(root / name)}


def write_jsonl(root, captions=WORDS):
    write_images(root)
    lines = [json.dumps({"image": f"pictures/{i}.png", "caption": c}) + "\n" for i, c in enumerate(captions)]
    (root / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {"name": "image_text_jsonl", "file": str(root / "captions.jsonl")}


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_shards(root, captions=WORDS):
    for shard in range(2):
        members = [("README.md", b"not a sample"), ("sub/._0.png", b"resource fork")]
        for i in range(shard, len(captions), 2):
            text = captions[i].encode() if i else json.dumps({"caption": captions[i], "width": 8}).encode()
            members += [(f"sub/{i}.cls", b"7"), (f"sub/{i}.txt" if i else "sub/0.json", text),
                        (f"sub/{i}.PNG", png(10 * i))]
        write_tar(root / f"shard-{shard:03d}.tar", members)
    return {"name": "image_text_tar", "root": str(root / "shard-{000..001}.tar")}


WRITERS = [write_folder, write_table, write_jsonl, write_shards]


def read(cfg, **options):
    return build_dataset({"merges": str(MERGES), "context_length": 32, **cfg, **options})


@pytest.mark.parametrize("write", WRITERS)
def test_pictures_and_captions_stay_together(tmp_path, write):
    dataset = read(write(tmp_path))
    assert sorted(dataset.captions) == sorted(WORDS)
    assert len(dataset) == 4
    for i, caption in enumerate(dataset.captions):
        image = dataset.image(i)
        assert image.shape == (6, 8, 3)
        assert image[0, 0, 0] == 10 * WORDS.index(caption)
    assert dataset.labels.dtype == np.int32
    assert dataset.labels.shape == (4, 32)
    tokenizer = Tokenizer(str(MERGES), context_length=32)
    assert np.array_equal(dataset.labels, tokenizer.encode_batch(dataset.captions))
    assert (dataset.vocab_size, dataset.context_length, dataset.class_names) == (tokenizer.vocab_size, 32, None)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_carries_the_tokens_of_its_pictures(tmp_path, write, workers):
    dataset = read(write(tmp_path))
    seen = []
    for (pictures,), tokens in loader_of(dataset, {"name": "center_crop", "img_size": 6}, num_workers=workers).epoch(0):
        assert tokens.dtype == np.int32
        for picture, row in zip(pictures, tokens):
            said = dataset.tokenizer.decode(row)
            truth = dataset.tokenizer.decode(dataset.tokenizer.encode(WORDS[int(picture[0, 0, 0]) // 10]))
            assert said == truth
            seen.append(said)
    assert len(set(seen)) == 4


@pytest.mark.parametrize(("name", "delimiter", "options"), [
    ("a.tsv", "\t", {}), ("a.txt", ";", {"delimiter": ";"}), ("a.csv", ",", {"image_column": "image"})])
def test_delimiters(tmp_path, name, delimiter, options):
    assert read({**write_table(tmp_path, name, delimiter), **options}).captions == WORDS


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    write_images(tmp_path)
    (tmp_path / "a.csv").write_text("image,caption\npictures/1.png,one\n", encoding="utf-8-sig")
    assert read({"name": "image_text_table", "file": str(tmp_path / "a.csv")}).captions == ["one"]


def test_columns_keys_and_the_folder_of_the_images_can_be_chosen(tmp_path):
    write_images(tmp_path / "elsewhere")
    (tmp_path / "a.csv").write_text("file,title\npictures/1.png,one\n\npictures/2.png,two\n")
    (tmp_path / "a.jsonl").write_text('{"file": "pictures/2.png", "title": "two"}\n\n')
    table = {"name": "image_text_table", "file": str(tmp_path / "a.csv"), "image_column": "file",
             "caption_column": "title", "root": str(tmp_path / "elsewhere")}
    assert read(table).captions == ["one", "two"]
    lines = {"name": "image_text_jsonl", "file": str(tmp_path / "a.jsonl"), "image_key": "file",
             "caption_key": "title", "root": str(tmp_path / "elsewhere")}
    assert read(lines).image(0)[0, 0, 0] == 20


def test_ranges_of_shards():
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand("{8..10}") == ["8", "9", "10"]
    assert expand("{0..1}/{00..01}.tar") == ["0/00.tar", "0/01.tar", "1/00.tar", "1/01.tar"]
    for bad in ("{3..1}.tar", "{0..99999999}.tar"):
        with pytest.raises(BadInput, match="a range of shards"):
            expand(bad)


@pytest.mark.parametrize("pattern", ["", "shard-*.tar", "shard-{000..001}.tar", "shard-00?.tar"])
def test_patterns_of_shards(tmp_path, pattern):
    write_shards(tmp_path)
    assert len(read({"name": "image_text_tar", "root": str(tmp_path / pattern)})) == 4


def test_one_shard_and_many_threads(tmp_path):
    write_tar(tmp_path / "a.tar", [m for i in range(40) for m in ((f"{i:02d}.png", png(i)), (f"{i:02d}.txt", b"x"))])
    dataset, wrong = read({"name": "image_text_tar", "root": str(tmp_path / "a.tar")}), []

    def look(start):
        for i in range(start, start + 200):
            if dataset.image(i % 40)[0, 0, 0] != i % 40:
                wrong.append(i)
    threads = [threading.Thread(target=look, args=(7 * i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"], "nothing is extracted"


def message(cfg, **options) -> str:
    with pytest.raises(BadInput) as caught:
        read(cfg, **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("write", [write_table, write_jsonl])
def test_missing_images_are_counted_and_named(tmp_path, write):
    cfg = write(tmp_path)
    for i in (0, 2):
        (tmp_path / "pictures" / f"{i}.png").unlink()
    said = message(cfg)
    assert "names 4 images, of which 2 are not in" in said
    assert "'pictures/0.png' (line " in said
    assert "-o data.dataset.root=" in said


def test_a_folder_with_halves_of_pairs(tmp_path):
    cfg = write_folder(tmp_path)
    (tmp_path / "part_0/0.txt").rename(tmp_path / "part_0/5.txt")
    assert "1 of 4 images have no .txt of the same name beside them: part_0/0.png" in message(cfg)
    (tmp_path / "part_0/0.png").unlink()
    assert "1 of 4 captions have no image of the same name beside them: part_0/5.txt" in message(cfg)


def test_shards_with_halves_of_pairs(tmp_path):
    cfg = {"name": "image_text_tar", "root": str(tmp_path / "a.tar")}
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.txt", b"x"), ("2.png", png(2))])
    assert "1 of 2 images have no caption" in message(cfg)
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.txt", b"x"), ("2.txt", b"y")])
    assert "1 of 2 captions have no image" in message(cfg)
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", b'{"text": "x"}')])
    assert "'caption' in .json" in message(cfg)
    assert read(cfg, caption_key="text").captions == ["x"]
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.txt", b"x"), ("1.png", png(1))])
    assert "1.png is there twice" in message(cfg)
    write_tar(tmp_path / "a.tar", [("notes.md", b"x")])
    assert "hold no pair" in message(cfg)


@pytest.mark.parametrize(("write", "file", "line"), [
    (write_folder, "part_1/1.txt", 1), (write_table, "captions.csv", 3), (write_jsonl, "captions.jsonl", 3),
    (write_shards, "shard-001.tar", 1)])
def test_broken_utf8_is_named_by_file_and_line(tmp_path, write, file, line):
    cfg = write(tmp_path, captions=["a", "b FUSS", "c", "d"])
    path = tmp_path / file
    path.write_bytes(path.read_bytes().replace(b"FUSS", b"F\xfc\xdf\xe9"))
    said = message(cfg)
    assert str(path) in said
    assert f"line {line}: not UTF-8 text" in said


@pytest.mark.parametrize("write", WRITERS)
def test_an_empty_caption_is_named(tmp_path, write):
    said = message(write(tmp_path, captions=["a", "b", " \t ", "d"]))
    assert "the caption is empty" in said
    assert {write_folder: "part_0/2.txt", write_table: "captions.csv, line 4", write_jsonl: "captions.jsonl, line 5",
            write_shards: "shard-000.tar: sub/2.txt"}[write] in said


NOT_PAIRS = {"table": [
    ("image,title\na,b\n", "no column 'caption'"), ("image,caption,caption\na,b,c\n", "two columns 'caption'"),
    ("", "no column 'image'"), ("image,caption\na,b,c\n", "line 2: 3 columns, expected the header's 2"),
    ('image,caption\na,"b\nc\n', "line 3: not a table"), ('image,caption\na,"b" c\n', "line 2: not a table"),
    ("image,caption\n", "holds no pair")], "jsonl": [
    ('{"image": "a"}\n', "line 1: no key 'caption'"), ('\n{"image": "a", ', "line 2: not JSON"),
    ('["a", "b"]', "expected a JSON object, got list"), ('{"image": 3, "caption": "x"}', "the image is 3"),
    ('{"image": "a", "caption": ["x"]}', "the caption is ['x']"), ("[" * 100_000, "line 1: not JSON")]}


@pytest.mark.parametrize(("kind", "text", "words"), [(kind, *row) for kind, rows in NOT_PAIRS.items() for row in rows])
def test_files_that_do_not_hold_pairs(tmp_path, kind, text, words):
    (tmp_path / "a.csv").write_text(text)
    assert words in message({"name": f"image_text_{kind}", "file": str(tmp_path / "a.csv")})


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_table_is_closed_when_its_error_is_shown(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,caption\na,b,c\n")
    with pytest.raises(BadInput) as error:
        list(read_table(path, "image", "caption", ","))
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert path not in opened, f"{error.value}, and the file is still open"


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    write_tar(tmp_path / "whole.tar", [("1.png", png(1)), ("1.txt", b"x"), ("2.png", png(2)), ("2.txt", b"y")])
    whole = (tmp_path / "whole.tar").read_bytes()
    cfg = {"name": "image_text_tar", "root": str(tmp_path / "cut.tar")}
    for size in (0, 100, 512, 600, 1024, 1500, 2048, 2560, 4096):      # inside headers, contents, padding, between
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        assert "cut.tar cannot be read as a tar file" in message(cfg), size
    damaged = bytearray(whole)
    damaged[2048 + 100] ^= 0xFF                                        # the third member's header
    (tmp_path / "cut.tar").write_bytes(damaged)
    assert "cannot be read as a tar file" in message(cfg)
    with tarfile.open(tmp_path / "cut.tar", "w:gz") as tar:
        tar.add(tmp_path / "whole.tar", "1.png")
    assert "is compressed" in message(cfg)


def test_a_link_in_a_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("1.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    assert "1.png is a link" in message({"name": "image_text_tar", "root": str(tmp_path / "a.tar")})


def test_bad_pictures_become_gray_are_named_and_end_the_run_when_many(tmp_path, capsys):
    cfg = write_folder(tmp_path)
    (tmp_path / "part_0/0.png").write_bytes(b"not an image")
    (tmp_path / "part_1/1.png").unlink()
    (tmp_path / "part_1/1.png").write_bytes(b"")
    dataset = read(cfg, max_bad_images=1)
    at = dataset.captions.index(WORDS[0])
    assert (dataset.image(at) == 128).all()
    assert (dataset.image(at) == 128).all()
    assert capsys.readouterr().err.count("warning: bad image 1") == 1
    assert dataset.bad_images == [str(tmp_path / "part_0/0.png")]
    with pytest.raises(BadInput, match=r"2 files are not readable images.*max_bad_images=4"):
        dataset.image(dataset.captions.index(WORDS[1]))


def test_a_shard_that_vanished_counts_for_every_picture_in_it(tmp_path):
    dataset = read(write_shards(tmp_path), max_bad_images=1)
    (tmp_path / "shard-000.tar").unlink()
    assert (dataset.image(0) == 128).all()
    with pytest.raises(BadInput, match=r"2 files are not readable images.*shard-000.tar: sub/0.PNG"):
        dataset.image(1)
    assert dataset.image(2)[0, 0, 0] == 10


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "image_text_folder", "root": "{}/none"}, "does not exist"),
    ({"name": "image_text_folder", "root": "{}"}, "has none"),
    ({"name": "image_text_table", "file": "{}/none.csv"}, "does not exist; point elsewhere with -o data.dataset.file="),
    ({"name": "image_text_table", "file": "{}/a.txt"}, "say what divides its columns"),
    ({"name": "image_text_table", "file": "{}/a.txt", "delimiter": ",,"}, "expected one character"),
    ({"name": "image_text_jsonl", "file": "{}"}, "is a folder"),
    ({"name": "image_text_tar", "root": "{}/c-*.tar"}, "does not exist"),
    ({"name": "image_text_tar", "root": "{}/b-{0..3}.tar"}, "3 of 4 shards are missing"),
    ({"name": "image_text_tar", "root": "{}/b-1.tar", "merges": "{}/none.gz"}, "none.gz"),
    ({"name": "image_text_tar", "root": "{}/b-1.tar", "mergers": "x"}, "did you mean 'merges'"),
    ({"name": "image_text_tar", "root": "{}/b-1.tar", "context_length": 2}, "context_length is 2"),
])
def test_what_is_not_there_is_said_before_anything_is_loaded(tmp_path, cfg, words):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b-1.tar").write_bytes(b"")
    cfg = {"merges": str(MERGES), **{k: v.replace("{}", str(tmp_path)) if k != "name" and isinstance(v, str) else v
                                     for k, v in cfg.items()}}
    with pytest.raises(BadInput) as caught:
        check_dataset(cfg)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
def test_there_is_no_test_split_and_the_way_out_is_named(tmp_path, write):
    with pytest.raises(BadInput, match=r"data\.eval_dataset"):
        check_dataset({**write(tmp_path), "merges": str(MERGES)}, "test")


def test_embedded_captions():
    train, test = build_dataset("embedded_captions"), build_dataset("embedded_captions", "test")
    same = build_dataset("fashion_mnist_mini")
    assert train.labels.shape == (5000, 16)
    assert np.array_equal(train.image(17), same.image(17))
    assert all(same.class_names[label].lower() in caption for label, caption in zip(same.labels, train.captions))
    assert train.captions[1] == make_caption(1, same.labels[1]) == "a small gray photo of a trouser"
    assert (train.labels.max(axis=1) == train.tokenizer.eot).all(), "no caption is cut"
    decoded = [train.tokenizer.decode(row).replace(" ", "") for row in train.labels[:50]]
    assert decoded == [caption.replace(" ", "") for caption in train.captions[:50]]
    assert np.array_equal(np.bincount(test.labels), np.full(10, 100))
    assert (train.class_names, test.class_names) == (None, same.class_names)


def test_the_packaged_merges_are_what_the_captions_teach():
    learned = train_bpe(build_dataset("embedded_captions").captions, 1000)
    assert [" ".join(pair) for pair in learned] == MERGES.read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.parametrize("write", WRITERS)
def test_a_vocabulary_is_learned_from_any_source(tmp_path, write):
    cfg = write(tmp_path)
    assert sorted(captions_at(cfg.get("root", cfg.get("file")))) == sorted(WORDS)


def test_a_vocabulary_from_a_text_file(tmp_path):
    (tmp_path / "words.txt").write_text("one\n\n two \n", encoding="utf-8")
    assert captions_at(str(tmp_path / "words.txt")) == ["one", "two"]
    for source in ("none.txt", "."):
        with pytest.raises(BadInput, match="no captions"):
            captions_at(str(tmp_path / "empty" / source))


def test_the_tokenizer_needs_no_images(tmp_path):
    cfg = {"name": "image_text_tar", "root": "nowhere", "merges": str(MERGES), "context_length": 9}
    assert build_tokenizer(cfg).context_length == 9
    assert build_tokenizer({"name": "embedded_captions"}).context_length == 16
    with pytest.raises(BadInput, match="'cifar10' has no captions"):
        build_tokenizer({"name": "cifar10", "root": "x"})
    with pytest.raises(BadInput, match=r"'image_text_tar' has no 'merges'.*passl-mixer bpe"):
        build_tokenizer({"name": "image_text_tar", "root": "nowhere"})      # never the demo's in their place


def clouds(height, width, seed):
    """A JPEG with something to see at every scale."""
    draw = np.random.default_rng(seed)
    image = sum(cv2.resize(draw.normal(0, 40, (n, n, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
                for n in (4, 12, 36))
    return cv2.imencode(".jpg", np.clip(image + 128, 0, 255).astype(np.uint8))[1].tobytes()


def photographs(root):
    """Four image-text datasets of the same four JPEGs, and an ``image_folder`` of them."""
    files = [clouds(*size, seed) for seed, size in enumerate([(300, 400), (60, 50), (220, 200), (400, 130)])]
    (root / "plain").mkdir()
    for i, data in enumerate(files):
        (root / "plain" / f"{i}.jpg").write_bytes(data)
        (root / "plain" / f"{i}.txt").write_text(f"number {i}")
    rows = [f"{i}.jpg,number {i}" for i in range(4)]
    (root / "plain" / "a.csv").write_text("\n".join(["image,caption", *rows]))
    (root / "plain" / "a.jsonl").write_text("\n".join(
        json.dumps({"image": f"{i}.jpg", "caption": f"number {i}"}) for i in range(4)))
    write_tar(root / "a.tar", [member for i, data in enumerate(files)
                               for member in ((f"{i}.jpg", data), (f"{i}.txt", b"number"))])
    plain = str(root / "plain")
    texts = [{"name": "image_text_folder", "root": plain}, {"name": "image_text_table", "file": f"{plain}/a.csv"},
             {"name": "image_text_jsonl", "file": f"{plain}/a.jsonl"},
             {"name": "image_text_tar", "root": str(root / "a.tar")}]
    return {"name": "image_folder", "root": plain}, texts


def views_of(dataset, recipe, workers=0):
    batches = loader_of(dataset, {"name": recipe, "img_size": 24}, num_workers=workers).epoch(1)
    return [np.stack(views) for views, _ in batches]


@pytest.mark.parametrize("reduce", [True, False])
def test_large_photographs_are_decoded_as_an_image_folder_decodes_them(tmp_path, reduce):
    images, texts = photographs(tmp_path)
    for recipe in ("inception", "moco_v2", "center_crop"):
        expected = views_of(build_dataset({**images, "decode_reduced": reduce}), recipe)
        for cfg in texts:
            dataset = read(cfg, decode_reduced=reduce)
            for workers in (0, 2):
                got = views_of(dataset, recipe, workers)
                assert all(np.array_equal(a, b) for a, b in zip(got, expected)), (cfg["name"], recipe)
    other = views_of(build_dataset({**images, "decode_reduced": not reduce}), "inception")
    expected = views_of(build_dataset({**images, "decode_reduced": reduce}), "inception")
    assert any(not np.array_equal(a, b) for a, b in zip(other, expected)), "the photographs are too small to tell"


def test_reduced_photographs_keep_their_size_and_bad_ones_are_gray(tmp_path, capsys):
    images, texts = photographs(tmp_path)
    for cfg in texts:
        asked = []
        image, size = read(cfg).reduced(0, lambda *s, asked=asked: asked.append(s) or 4)
        theirs = build_dataset(images).reduced(0, lambda *s: 4)
        assert (image.shape[:2], size, asked) == ((75, 100), (300, 400), [(300, 400)])
        assert np.array_equal(image, theirs[0])
        whole, size = read(cfg, decode_reduced=False).reduced(0, lambda *s: 4)
        assert (whole.shape[:2], size) == ((300, 400), (300, 400))
        assert np.array_equal(whole, read(cfg).image(0))
    (tmp_path / "plain" / "0.jpg").write_bytes(b"\xff\xd8 cut off")
    dataset = read(texts[0])
    for _ in range(2):
        image, size = dataset.reduced(0, lambda *s: 8)
        assert (image == 128).all()
        assert image.shape[:2] == size
    assert dataset.bad_images == [str(tmp_path / "plain" / "0.jpg")]
    assert capsys.readouterr().err.count("warning: bad image 1") == 1
