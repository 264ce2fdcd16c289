"""A person who gave bad input reads one line; a defect of ours keeps its traceback."""

import pytest

from hopline import console


def test_bad_input_is_one_line_and_exit_status_two(capsys):
    def main():
        raise console.InputError("timestep_fs\nmust be positive")

    with pytest.raises(SystemExit) as ended:
        console.run(main)
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.endswith(": error: timestep_fs must be positive\n")
    assert written.err.count("\n") == 1


def test_a_missing_file_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        console.run(lambda: (tmp_path / "nowhere").open().close())
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(f"{tmp_path / 'nowhere'}: No such file or directory")


def test_a_defect_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        console.run(main)


def test_progress_yields_everything_and_speaks_every_ten_seconds(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    assert list(console.progress(range(6), total=6, label="md", unit="frames")) == list(range(6))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["md: 3/6 frames, 0.25 frames/s, 12 s left", "md: 6/6 frames, 0.25 frames/s, 0 s left"]


def test_progress_through_a_stream_of_unknown_length_counts(capsys, monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    assert list(console.progress(iter(range(4)), total=None, label="read", unit="frames")) == [0, 1, 2, 3]
    assert capsys.readouterr().err.splitlines() == [
        "read: 2 frames, 0.167 frames/s",
        "read: 4 frames, 0.167 frames/s",
    ]
