"""Readers of data sets in files."""

import gzip
import re
import struct

import numpy as np
import pytest

from flowmatch.datasets import load_idx_folder, load_penguins, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array, code=None):
    """Bytes of an IDX file, written straight from the format's description."""
    code = CODES[array.dtype.str[1:]] if code is None else code
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + b"".join(struct.pack(f">{array.dtype.char}", value) for value in array.ravel().tolist())


def write_folder(folder, names, n_images=5, n_labels=5):
    """The two files, under given names."""
    images = np.arange(n_images * 6, dtype=np.uint8).reshape(n_images, 2, 3)
    labels = np.arange(n_labels, dtype=np.uint8)
    for name, array in zip(names, (images, labels), strict=True):
        content = idx(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return images, labels


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", CODES)
def test_every_element_type_comes_back_as_written(dtype, shape, compressed, tmp_path):
    values = np.random.default_rng(0).normal(size=shape) * (1 if dtype[0] == "f" else 50)
    array = np.abs(values).astype(dtype) if dtype == "u1" else values.astype(dtype)
    content = idx(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compressed else content)
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


def test_bytes_are_read_high_byte_first(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes([0, 0, 0x0B, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE]))
    assert read_idx(path).tolist() == [258, -2]


GOOD = idx(np.arange(24, dtype=np.int32).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file: it starts with nothing; expected 00 00"),
        (b"PK\x03\x04", "it starts with 50 4b 03 04"),
        (b"\0\0\x0a\x01" + GOOD[4:], r"type byte \(0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e\)"),
        (GOOD[:9], "truncated: it ends inside its header of 16 bytes, after 9"),
        (GOOD[:-1], r"truncated: shape \(2, 3, 4\) of 4-byte elements needs 96 bytes after the header, there are 95"),
        (GOOD + b"\0", "damaged: .* needs 96 bytes after the header, there are 97"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated: shape .* needs 7922816245"),
        (gzip.compress(GOOD, mtime=0)[:-5], "truncated or damaged"),
        (gzip.compress(GOOD, mtime=0)[:20] + b"\0\0\0\0" + gzip.compress(GOOD, mtime=0)[24:], "truncated or damaged"),
        (gzip.compress(GOOD[:-1], mtime=0), "there are 95"),
    ],
)
def test_damaged_files_are_named_with_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "file.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")),
        ("train", ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte")),
        ("train", ("train-images.idx3-ubyte", "train-labels.idx1-ubyte.gz")),
        ("test", ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")),
        ("test", ("test-images-idx3-ubyte", "test-labels-idx1-ubyte")),
    ],
)
def test_a_folder_gives_images_and_labels_under_every_usual_name(part, names, tmp_path):
    images, labels = write_folder(tmp_path, names)
    X, y = load_idx_folder(tmp_path, part)
    assert (X.dtype, X.shape, y.dtype) == (np.uint8, (5, 1, 2, 3), np.int64)
    np.testing.assert_array_equal(X[:, 0], images)
    np.testing.assert_array_equal(y, labels)


def test_missing_files_are_told_with_what_is_there(tmp_path):
    write_folder(tmp_path, ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    with pytest.raises(FileNotFoundError) as caught:
        load_idx_folder(tmp_path)
    message = str(caught.value)
    assert "expected one of train-images-idx3-ubyte, train-images-idx3-ubyte.gz, train-images.idx3-ubyte" in message
    assert message.endswith("found t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte.")


def test_a_missing_folder_and_an_unknown_part_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nowhere"))):
        load_idx_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="unknown part 'valid'. Choose one of 'train', 'test'"):
        load_idx_folder(tmp_path, "valid")


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    write_folder(tmp_path, names, n_images=5, n_labels=4)
    with pytest.raises(ValueError, match="holds 5 images and 'train-labels-idx1-ubyte' 4 labels"):
        load_idx_folder(tmp_path)
    write_folder(tmp_path, names[::-1])
    with pytest.raises(ValueError, match=r"holds uint8 of shape \(5,\); expected uint8 \(n, H, W\)"):
        load_idx_folder(tmp_path)


def test_penguins_are_a_table_of_keys_dates_categories_and_gaps():
    pytest.importorskip("pandas")
    penguins = load_penguins()
    assert penguins.shape == (344, 10)
    assert penguins["id"].is_unique
    assert penguins["egg_date"].dtype.kind == "M"
    assert penguins.isna().sum().sum() == 4 * 2 + 11
    assert (penguins["body_mass_g"].dropna() % 25 == 0).all()
    assert penguins.groupby("species").size().to_dict() == {"Adelie": 152, "Chinstrap": 68, "Gentoo": 124}
