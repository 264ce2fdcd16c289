"""Files that nobody means well with: one clear line or a row in rejected.csv, in bounded time and memory."""

import csv
import io
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from label_files import FORMATS, WRITERS, labelled_frames

import ingest_labels
from hopline import console, frames

MAX_MEMORY_KB = 1 << 20
TWO_GB = 2 << 30
N_CUTS = 50
BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">
<!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;"><!ENTITY g "&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;">
<!ENTITY h "&g;&g;&g;&g;&g;&g;&g;&g;&g;&g;"><!ENTITY i "&h;&h;&h;&h;&h;&h;&h;&h;&h;&h;">
<!ENTITY file SYSTEM "file:///etc/passwd">]>
"""


class Answer:
    """What ingest_labels.py did with its sources."""

    def __init__(
        self, folder: Path, *sources: Path, file_format: str = "auto", may_lose: float = 0.99
    ) -> None:
        self.frames, self.table = folder / "out.extxyz", folder / "out.csv"
        self.arguments = [
            "ingest_labels.py", "--source", *map(str, sources), "--frames", str(self.frames), "--rejected",
            str(self.table), "--max-rejected-fraction", str(may_lose), "--format", file_format,
        ]  # fmt: skip

    def here(self, monkeypatch, capsys) -> "Answer":
        """Ask in this process, as the script's entry does."""
        monkeypatch.setattr(sys, "argv", self.arguments)
        try:
            console.run(ingest_labels.main)
            self.status = 0
        except SystemExit as stop:
            self.status = stop.code
        self.said = capsys.readouterr().err
        return self

    @property
    def rejected(self) -> list[dict[str, str]]:
        """The rows of the table of rejected frames."""
        return list(csv.DictReader(self.table.open())) if self.table.exists() else []

    def must_be_clear(self) -> None:
        """Check that a person was told: a line for each rejected frame, one more where all was refused."""
        lines = self.said.splitlines()
        errors = [line for line in lines if ": error: " in line]
        assert "Traceback" not in self.said, self.said
        assert self.status in {0, 2}
        assert len(errors) == (self.status == 2)
        assert self.frames.exists() == (self.status == 0)
        assert all(row["reason"] for row in self.rejected)
        assert sum(line.startswith("rejected: ") for line in lines) == len(self.rejected)
        # nothing half-written lies about
        assert not [path for path in self.frames.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    def ask_about(*sources, file_format="auto"):
        folder = tmp_path / "answer"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        answer = Answer(folder, *sources, file_format=file_format).here(monkeypatch, capsys)
        answer.must_be_clear()
        return answer

    return ask_about


@pytest.fixture(params=FORMATS)
def file_format(request):
    return request.param


@pytest.fixture
def whole(file_format, tmp_path, shared_data):
    """A whole file (DeePMD: folder) of one format, with five frames where the format holds more than one."""
    folder = tmp_path / "a folder with späces"
    folder.mkdir()
    return WRITERS[file_format](folder, labelled_frames(5), shared_data)


def one_file(path: Path) -> Path:
    return path if path.is_file() else min(path.rglob("force*.npy"))


def test_the_whole_file_is_taken_in(whole, ask):
    answer = ask(whole)
    assert answer.status == 0
    assert answer.rejected == []


SPOILT = {
    "empty": b"",
    "binary": bytes(random.Random(1).randbytes(5000)),
    "utf-16": "Energie: -1.0 eV, größer\n".encode("utf-16") * 50,
    "latin-1": "größer\n".encode("latin-1") * 50,
    "nulls": bytes(5000),
}


@pytest.mark.parametrize("content", SPOILT)
def test_spoilt_content_under_a_good_name(whole, ask, file_format, content):
    one_file(whole).write_bytes(SPOILT[content])
    answer = ask(whole, file_format=file_format)
    assert answer.status == 2
    assert answer.rejected or "error" in answer.said
    # told by content or name, it is refused just as clearly
    assert ask(whole).status == 2


def test_wherever_it_is_cut_off_only_whole_frames_come_through(whole, ask, file_format):
    path = one_file(whole)
    content = path.read_bytes()
    assert ask(whole, file_format=file_format).status == 0
    originals = {atoms.info["frame_id"]: atoms for atoms in frames.read_labelled(ask(whole).frames)}
    cuts = random.Random(7).sample(range(len(content)), N_CUTS)
    for cut in cuts:
        path.write_bytes(content[:cut])
        answer = ask(whole, file_format=file_format)
        if answer.status == 2:
            continue
        for atoms in frames.read_labelled(answer.frames):
            original = originals[atoms.info["frame_id"]]
            assert atoms.info["REF_energy"] == original.info["REF_energy"], cut
            np.testing.assert_array_equal(atoms.arrays["REF_forces"], original.arrays["REF_forces"])
            np.testing.assert_array_equal(atoms.info["REF_stress"], original.info["REF_stress"])
        assert answer.rejected or len(frames.read_frames(answer.frames)) == len(originals), cut


MEASURED = """
import atexit, runpy, sys
from memory import peak_memory_kB
atexit.register(lambda: print(peak_memory_kB()))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def limited(arguments: list[str], timeout_s: float) -> tuple[int, int, str]:
    """Run the script on its own; return its status, its largest memory (kB) and what it said."""
    script = Path(ingest_labels.__file__)
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(script), *arguments[1:]],
        capture_output=True, text=True, check=False, timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": f"{script.parent}:{Path(__file__).parents[1]}"},
    )  # fmt: skip
    return run.returncode, int(run.stdout.splitlines()[-1]), run.stderr


def test_two_gigabytes_of_nothing_after_a_valid_header(whole, tmp_path, file_format):
    path = one_file(whole)
    with path.open("r+b") as file:
        file.truncate(TWO_GB)
    # one loss is too much here: an accepted source would be hashed for its provenance, all two gigabytes of it
    answer = Answer(tmp_path, whole, may_lose=0)
    status, memory_kB, said = limited(answer.arguments, timeout_s=60)
    # SQLite knows how long its data are, and what follows is none of them: nothing is lost
    whole_still = file_format == "ase-db"
    assert status == (0 if whole_still else 2), said
    assert "Traceback" not in said
    assert sum(": error: " in line for line in said.splitlines()) == (not whole_still)
    assert memory_kB < MAX_MEMORY_KB


@pytest.mark.parametrize("name", ["vasprun.xml", "data-file-schema.xml"])
def test_entities_are_not_expanded(tmp_path, ask, name):
    root = "modeling" if name == "vasprun.xml" else "qes:espresso"
    (tmp_path / name).write_text(f"{BOMB}<{root}>&i;&file;</{root}>\n")
    answer = ask(tmp_path / name)
    assert answer.status == 2
    assert "root:" not in answer.said


def test_a_pickle_that_calls_itself_npy_is_never_opened(tmp_path, ask, shared_data):
    whole = WRITERS["deepmd"](tmp_path, labelled_frames(3), shared_data)
    victim = tmp_path / "it ran"
    bomb = io.BytesIO()
    np.save(bomb, np.array([Bomb(victim)], dtype=object), allow_pickle=True)
    for content in (bomb.getvalue(), bomb.getvalue()[128:]):
        one_file(whole).write_bytes(content)
        assert ask(whole).status == 2
    assert not victim.exists()


class Bomb:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (os.mkdir, (str(self.victim),))


def test_folders_that_contain_themselves(tmp_path, ask, shared_data):
    folder = tmp_path / "runs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "again").symlink_to(folder)
    (folder / "nowhere.xyz").symlink_to(folder / "missing.xyz")
    WRITERS["extxyz"](folder / "deep", labelled_frames(3), shared_data)
    answer = ask(folder)
    assert (answer.status, len(frames.read_frames(answer.frames)), answer.rejected) == (0, 3, [])


def test_frames_without_a_cell_and_atoms_in_any_order(tmp_path, ask):
    good, bare, mixed = labelled_frames(3)
    bare.set_cell([0, 0, 0])
    bare.set_pbc(False)
    order = np.random.default_rng(3).permutation(len(mixed))
    shuffled = mixed[order]
    shuffled.calc = SinglePointCalculator(
        shuffled, energy=mixed.get_potential_energy(), forces=mixed.get_forces()[order]
    )
    ase.io.write(tmp_path / "a.xyz", [good, bare, mixed, shuffled], format="extxyz")
    answer = ask(tmp_path / "a.xyz")
    assert [row["reason"] for row in answer.rejected] == [
        "no three-dimensional cell", f"duplicate of frame 2 of {tmp_path / 'a.xyz'}",
    ]  # fmt: skip
    kept = frames.read_labelled(answer.frames)
    np.testing.assert_allclose(kept[1].arrays["REF_forces"], mixed.get_forces(), atol=1e-8)
    assert str(kept[0].symbols) == str(good.symbols)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, shared_data):
    source = shared_data / "lif" / "step_0_train.xyz"
    answer = Answer(tmp_path, source)
    run = subprocess.run(
        [sys.executable, ingest_labels.__file__, *answer.arguments[1:]],
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)),
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert "File too large" in run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "out.csv.provenance.json"}
