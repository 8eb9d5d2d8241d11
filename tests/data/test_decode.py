"""JPEG headers against OpenCV's own reading, and decoding at a fraction of the size."""
import io
import struct

import cv2
import numpy as np
import pytest
from helpers.data import with_exif
from PIL import Image

from passl_mixer.data import rng
from passl_mixer.data.decode import decode, decode_reduced, jpeg_size


def smooth(height, width):
    coarse = rng(0, 0, height).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, ending=".jpg", *options):
    return cv2.imencode(ending, image[..., ::-1], list(options))[1].tobytes()


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
                                     (cv2.IMWRITE_JPEG_QUALITY, 30)])
@pytest.mark.parametrize("size", [(37, 52), (8, 300), (64, 1)])
def test_the_size_is_the_decoded_one(size, options):
    data = encode(smooth(*size), ".jpg", *options)
    assert jpeg_size(data) == decode(data).shape[:2] == size
    assert jpeg_size(encode(smooth(*size)[..., :1].repeat(3, 2))) == size


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_turns_size_and_reduced_image_alike(orientation, order):
    data = with_exif(encode(smooth(64, 96)), orientation, order)
    whole = decode(data)
    assert jpeg_size(data) == whole.shape[:2] == ((96, 64) if 5 <= orientation <= 8 else (64, 96))
    image, size = decode_reduced(data, lambda height, width: 2)
    assert size == whole.shape[:2]
    half = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - image).mean() < 3


def with_comment(jpeg):
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", 2 + 4) + b"\xff\xc0\xff\xd8" + b"\xff\xff" + jpeg[2:]


def with_table(jpeg):
    start = jpeg.index(b"\xff\xc4")
    return jpeg[:2] + jpeg[start:start + 2 + int.from_bytes(jpeg[start + 2:start + 4], "big")] + jpeg[2:]


@pytest.mark.parametrize(("change", "size"), [
    (with_comment, (64, 96)), (with_table, (64, 96)),                       # what looks like markers is text; a table
    (lambda jpeg: with_exif(with_exif(jpeg, 1), 6), (96, 64)),              # the first of two blocks counts
    (lambda jpeg: with_exif(with_exif(jpeg, 6), 1), (64, 96))])
def test_what_stands_before_the_frame_is_passed_over(change, size):
    data = change(encode(smooth(64, 96)))
    assert jpeg_size(data) == decode(data).shape[:2] == size


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"hello world", encode(smooth(9, 9), ".png"),
                                  encode(smooth(9, 9))[:40], b"\xff\xd8" + b"\xff\xe0\0\0" * 9,
                                  b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x10\x01\x11\0", b"\xff\xd8" + b"\xff" * 50])
def test_what_has_no_jpeg_size(data):
    assert jpeg_size(data) is None


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [(64, 96), (71, 85)])
def test_a_reduced_image_is_the_whole_one_averaged(size, factor):
    data = encode(smooth(*size), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    image, whole_size = decode_reduced(data, lambda height, width: factor)
    assert whole_size == size
    assert image.shape[:2] == tuple(-(-side // factor) for side in size)
    rows, columns = (side // factor for side in size)
    whole = decode(data)[:rows * factor, :columns * factor]
    means = whole.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    assert np.abs(image[:rows, :columns] - means).mean() < 1.5


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_QUALITY, 30)])
def test_pixels_are_those_that_pillow_decodes(options):
    noise = cv2.resize(rng(0, 0, 3).integers(0, 256, (30, 45, 3), dtype=np.uint8), (135, 91))
    for image, ending in ((noise, ".jpg"), (noise[..., :1].repeat(3, 2), ".jpg"), (noise, ".png"), (noise, ".bmp")):
        data = encode(image, ending, *(options if ending == ".jpg" else ()))
        theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        found = np.abs(decode(data) - theirs)
        assert found.mean() < 0.2       # 0 where both bring the same libjpeg-turbo
        assert found.max() <= 3


def test_only_jpegs_are_reduced_and_only_when_asked():
    image = smooth(40, 60)

    def never(height, width):
        raise AssertionError("only a JPEG's size is known before decoding")

    for ending in (".png", ".bmp", ".webp"):
        got, size = decode_reduced(encode(image, ending), never)
        assert got.shape == image.shape
        assert size == (40, 60)
    asked = []
    got, size = decode_reduced(encode(image), lambda *s: asked.append(s) or 1)
    assert np.array_equal(got, decode(encode(image)))
    assert asked == [size] == [(40, 60)]


def test_a_header_read_otherwise_than_by_opencv_gives_the_whole_image():
    data = with_exif(encode(smooth(64, 96)), 6).replace(b"Exif\0\0II*\0", b"Exif\0\0II\0*")  # no TIFF number
    asked = []
    image, size = decode_reduced(data, lambda *s: asked.append(s) or 2)
    assert asked == [(96, 64)]  # turned, as we read it; OpenCV leaves such a block alone
    assert image.shape[:2] == size == (64, 96)
    assert np.array_equal(image, decode(data))


@pytest.mark.parametrize("data", [b"", b"hello", encode(smooth(30, 30))[:60]])
def test_what_is_not_an_image_is_none(data):
    assert decode(data) is None
    assert decode_reduced(data, lambda height, width: 2) is None
