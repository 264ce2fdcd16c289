"""Files from strangers: decompressed, line by line, with bounds."""

import bz2
import gzip
import lzma

import pytest

from hopline.labels import text
from hopline.labels.candidates import Broken

CONTENT = "eins\nzwei größer\ndrei"
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_files_are_told_by_their_content(tmp_path, suffix):
    path = tmp_path / "no suffix at all"
    path.write_bytes(PACKERS[suffix](CONTENT.encode()))
    assert list(text.lines(path)) == ["eins\n", "zwei größer\n", "drei"]
    assert text.head(path) == CONTENT.encode()
    with text.unpacked(path) as plain:
        assert plain.read_text() == CONTENT
    assert not plain.exists()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_that_was_cut_off(tmp_path, suffix):
    path = tmp_path / "a"
    packed = PACKERS[suffix]((CONTENT * 5000).encode())
    path.write_bytes(packed[: len(packed) // 2])
    for read in (lambda: list(text.lines(path)), lambda: text.unpacked(path).__enter__()):
        with pytest.raises(Broken, match="the compressed file is damaged or ends early"):
            read()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_that_was_damaged(tmp_path, suffix):
    path = tmp_path / "a"
    packed = bytearray(PACKERS[suffix](bytes(range(256)) * 40))
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(Broken), text.unpacked(path):
        pass


def test_names_lose_the_suffix_of_a_compression():
    assert text.plain_name("a/vasprun.xml.gz") == "vasprun.xml"
    assert text.plain_name("a/OUTCAR") == "OUTCAR"


def test_binary_data_endless_lines_and_endless_files(tmp_path):
    (tmp_path / "binary").write_bytes(b"one\ntwo\0three\n")
    with pytest.raises(Broken, match="line 2 holds binary data"):
        list(text.lines(tmp_path / "binary"))
    (tmp_path / "line").write_bytes(b"x" * (text.MAX_LINE_BYTES + 1))
    with pytest.raises(Broken, match="line 1 is longer than"):
        list(text.lines(tmp_path / "line"))
    (tmp_path / "file").write_bytes(b"x\n" * 1000)
    with pytest.raises(Broken, match="longer than"):
        text.text(tmp_path / "file", max_bytes=999)


def test_a_plain_file_is_not_copied(tmp_path):
    (tmp_path / "a").write_text(CONTENT)
    with text.unpacked(tmp_path / "a") as plain:
        assert plain == tmp_path / "a"


def test_bytes_that_are_no_utf8_do_not_stop_a_reader(tmp_path):
    (tmp_path / "a").write_bytes("größer\r\n".encode("latin-1"))
    assert list(text.lines(tmp_path / "a")) == ["gr��er\n"]
