"""A folder is held by one process, and goes only if it is Hopline's."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hopline import work_folder
from hopline.console import InputError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class CutOffError(Exception):
    """What ends a computation before its time."""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    """The second is another process: a lock of our own would be ours."""
    second = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from hopline import console
        from hopline.work_folder import own_folder

        def main():
            with own_folder(Path(sys.argv[1])):
                pass

        console.run(main)
        """
    )

    def try_it():
        environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
        return subprocess.run(
            [sys.executable, "-c", second, tmp_path / "work"],
            env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip

    def fail_with_the_folder():
        with work_folder.own_folder(tmp_path / "work"):
            refused = try_it()
            assert refused.returncode == 2
            assert "is in use by another process" in refused.stderr
            raise CutOffError

    with pytest.raises(CutOffError):
        fail_with_the_folder()
    assert (tmp_path / "work").is_dir()
    assert try_it().returncode == 0
    assert not (tmp_path / "work").exists()


def test_a_folder_of_something_else_is_not_removed(tmp_path):
    """The folder goes when the training ends, so it must be the training's own, and hold none of its results."""
    mine = tmp_path / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="is not Hopline's"), work_folder.own_folder(mine.parent):
        pass
    for card in (tmp_path / "work" / "card.json", tmp_path / "work" / "deeper" / "card.json"):
        with (
            pytest.raises(InputError, match=r"card\.json with it: name another folder"),
            work_folder.own_folder(tmp_path / "work", outputs=[card]),
        ):
            pass
    assert mine.read_text() == "mine"
    assert not (tmp_path / "work").exists()
