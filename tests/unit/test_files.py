"""Files appear whole or not at all."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline import files
from hopline.console import InputError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def fail_halfway(path):
    with files.whole(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError("power cut")


def run_python(code, *arguments):
    """Start a Python of its own whose writer we may kill or starve."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError, match="power cut"):
        fail_halfway(path)
    assert files.read_json(path) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_failing_writer_leaves_no_file_where_there_was_none(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        fail_halfway(tmp_path / "new.txt")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_json_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "result.json", {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "result.json", {"new": object()})
    assert files.read_json(tmp_path / "result.json") == {"old": 1}


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})
    writer = run_python(
        """
        import sys, time
        from hopline import files
        with files.whole(sys.argv[1]) as temporary:
            temporary.write_text("half of the ne")
            print("half", flush=True)
            time.sleep(60)
        """,
        path,
    )
    assert writer.stdout.readline() == b"half\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert files.read_json(path) == {"old": 1}


def test_a_full_disk_leaves_the_old_file_and_one_line(tmp_path):
    """A file-size limit stands for the full disk: it needs no root, and the write fails as there."""
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})
    writer = run_python(
        """
        import resource, signal, sys
        from hopline import console, files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        console.run(lambda: files.write_json(sys.argv[1], {"new": "x" * 100_000}))
        """,
        path,
    )
    errors = writer.communicate()[1].decode()
    assert writer.returncode == 2
    assert len(errors.strip().splitlines()) == 1, errors
    assert files.read_json(path) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_new_file_has_the_permissions_that_the_user_asked_for(tmp_path):
    old = os.umask(0o027)
    try:
        files.write_json(tmp_path / "deep" / "er" / "a.json", {})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "deep" / "er" / "a.json").stat().st_mode) == 0o640


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with files.whole(tmp_path / "features.npy") as temporary:
        assert temporary.suffix == ".npy"
        assert temporary.parent == tmp_path
        np.save(temporary, np.arange(3))
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), np.arange(3))


def test_numbers_that_are_none_become_null(tmp_path):
    content = {
        "nan": float("nan"), "inf": np.float32("inf"), "list": [1.5, -np.inf], "array": np.array([[1.0, np.nan]]),
        "int": np.int64(3), "bool": np.bool_(True), "path": Path("a/b"), 7: (1, 2),
    }  # fmt: skip
    files.write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "nan": None, "inf": None, "list": [1.5, None], "array": [[1.0, None]],
        "int": 3, "bool": True, "path": "a/b", "7": [1, 2],
    }  # fmt: skip


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(content=st.dictionaries(st.text(), plain, max_size=4))
def test_json_gives_back_what_was_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    files.write_json(path, content)
    assert files.read_json(path) == content


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b'{"a": 1}}', b"\xff\xfe\x00", b"[1, 2]", b"3"])
def test_json_that_is_no_whole_object_is_refused_by_name(tmp_path, content):
    (tmp_path / "cut.json").write_bytes(content)
    with pytest.raises(InputError, match=r"cut\.json") as error:
        files.read_json(tmp_path / "cut.json")
    assert "\n" not in str(error.value)


def test_missing_json_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        files.read_json(tmp_path / "none.json")


def test_sha256_is_the_standard_one(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert (
        files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
