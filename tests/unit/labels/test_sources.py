"""Every door: formats told by content, folders searched, each run taken once, and what real codes left behind."""

import shutil

import numpy as np
import pytest
from label_files import FORMATS, INVENTED, WRITERS, gzipped, labelled_frames

from hopline import frames
from hopline.console import InputError
from hopline.labels.sources import candidates

PRECISION = 1e-8


def found(*paths, file_format="auto"):
    return list(candidates(paths, file_format=file_format))


@pytest.mark.parametrize("name", INVENTED)
def test_a_round_trip_through_every_writer_and_reader(tmp_path, shared_data, name):
    written = labelled_frames(4)
    read = found(WRITERS[name](tmp_path, written, shared_data))
    assert [candidate.reason for candidate in read] == [""] * 4
    for atoms, candidate in zip(written, sorted(read, key=lambda one: position(one, written)), strict=True):
        # VASP groups the atoms by element
        order = np.argsort(atoms.numbers, kind="stable") if name == "ml_ab" else np.arange(len(atoms))
        assert list(candidate.atoms.numbers) == list(atoms.numbers[order])
        assert candidate.energy_eV == pytest.approx(atoms.get_potential_energy(), abs=PRECISION)
        for value, expected in (
            (candidate.atoms.positions, atoms.positions[order]),
            (candidate.atoms.cell.array, atoms.cell.array),
            (candidate.forces_eV_per_A, atoms.get_forces()[order]),
            (frames.stress_matrix(candidate.stress), atoms.get_stress(voigt=False)),
        ):
            np.testing.assert_allclose(value, expected, rtol=0, atol=PRECISION)


def position(candidate, written):
    """Return which of the written frames a candidate is: some formats file them in another order."""
    return int(np.argmin([abs(atoms.get_potential_energy() - candidate.energy_eV) for atoms in written]))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_by_its_content_compressed_or_not(tmp_path, shared_data, name):
    path = WRITERS[name](tmp_path, labelled_frames(3), shared_data)
    told = found(path)
    assert told
    assert not any(candidate.reason for candidate in told)
    assert len(found(path, file_format=name)) == len(told)
    if path.is_file():
        packed = found(gzipped(path))
        assert [one.energy_eV for one in packed] == [one.energy_eV for one in told]


def test_a_folder_of_everything(tmp_path, shared_data):
    for name in FORMATS:
        (tmp_path / name).mkdir()
        WRITERS[name](tmp_path / name, labelled_frames(3), shared_data)
    (tmp_path / "notes.txt").write_text("passed over\n")
    everything = found(tmp_path)
    assert not [candidate.reason for candidate in everything if candidate.reason]
    # three frames in each of the five invented sets, ten steps in each of VASP's two, one pw.x run
    assert len(everything) == 3 * 5 + 2 * 10 + 1
    assert len(found(tmp_path, file_format="extxyz")) == 3


def test_every_real_run_is_taken_once(shared_data):
    vasp = found(shared_data / "dft_outputs" / "vasp")
    assert {candidate.source.rsplit("/", 1)[1] for candidate in vasp} == {
        "Ti-O-Ti-v6.vasprun.xml", "vasprun.h2o.md.10.xml",
    }  # fmt: skip
    espresso = found(shared_data / "dft_outputs" / "espresso")
    assert len(espresso) == 9
    assert not any(candidate.source.endswith(".xml") for candidate in espresso)
    refused = {
        candidate.source.split("/")[-2]: candidate.reason for candidate in espresso if candidate.reason
    }
    assert refused == {
        "failed_scf_not_converged": "SCF not converged after 2 steps",
        "failed_out_of_walltime": "cut off: pw.x reached its walltime limit",
        "failed_interrupted": "interrupted: the output ends without JOB DONE",
        "tot_magnetization": "no forces printed",
    }


def test_ml_abn_holds_all_of_ml_ab(tmp_path, shared_data):
    path = WRITERS["ml_ab"](tmp_path, labelled_frames(3), shared_data)
    shutil.copyfile(path, tmp_path / "ML_AB")
    assert len(found(tmp_path)) == 3


def test_links_that_lead_back_and_hidden_folders(tmp_path, shared_data):
    (tmp_path / "deep" / ".scratch").mkdir(parents=True)
    WRITERS["extxyz"](tmp_path / "deep", labelled_frames(2), shared_data)
    WRITERS["extxyz"](tmp_path / "deep" / ".scratch", labelled_frames(5), shared_data)
    (tmp_path / "deep" / "again").symlink_to(tmp_path)
    assert len(found(tmp_path)) == 2


def test_what_is_missing_or_unknown_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("a shopping list\n")
    for path, why in ((tmp_path / "none", "does not exist"), (tmp_path / "notes.txt", "is not understood")):
        with pytest.raises(InputError, match=why):
            found(path)
    with pytest.raises(InputError, match="format vasp is not known: auto, espresso, vasprun"):
        found(tmp_path / "notes.txt", file_format="vasp")
    with pytest.raises(InputError, match="name the DeePMD folder"):
        found(tmp_path / "notes.txt", file_format="deepmd")
