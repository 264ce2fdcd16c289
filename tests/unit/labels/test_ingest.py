"""Ingestion: key variants, stress shapes, reasons for rejection, and counts that add up."""

import csv
import re
import shutil
from dataclasses import replace

import ase.build
import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from hopline import frames
from hopline.console import InputError
from hopline.labels.ingest import Ingested, Limits, ingest, refuse_unfit, write_rejected

LIMITS = Limits(min_distance_A=0.5, max_force_eV_per_A=50.0, max_energy_deviation_eV_per_atom=1.0)
STRESS = np.array([[0.01, 0.04, 0.05], [0.04, 0.02, 0.06], [0.05, 0.06, 0.03]])
VOIGT = [0.01, 0.02, 0.03, 0.06, 0.05, 0.04]


def lif(seed: int = 0):
    atoms = ase.build.bulk("LiF", "rocksalt", a=4.08, cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def labelled(seed: int = 0, prefix: str = "REF_", stress=None):
    atoms = lif(seed)
    atoms.info[f"{prefix}energy"] = -10.0 - seed
    atoms.arrays[f"{prefix}forces"] = np.full((len(atoms), 3), 0.1)
    if stress is not None:
        atoms.info[f"{prefix}stress"] = stress
    return atoms


def take(*paths, file_format="auto", defaults=None, **changes) -> Ingested:
    return ingest(paths, file_format=file_format, limits=replace(LIMITS, **changes), defaults=defaults)


@pytest.mark.parametrize("prefix", ["REF_", "dft_", "DFT_"])
@pytest.mark.parametrize("stress", [VOIGT, STRESS.ravel(), STRESS, None], ids=["6", "9", "3x3", "none"])
def test_key_names_and_stress_shapes(tmp_path, prefix, stress):
    ase.io.write(tmp_path / "a.xyz", labelled(prefix=prefix, stress=stress), format="extxyz")
    (frame,) = take(tmp_path / "a.xyz").accepted
    labels = frames.labels_of(frame)
    assert labels.energy_eV == -10.0
    np.testing.assert_allclose(labels.forces_eV_per_A, 0.1)
    if stress is None:
        assert labels.stress_eV_per_A3 is None
    else:
        np.testing.assert_allclose(labels.stress_eV_per_A3, STRESS)


@pytest.mark.parametrize("stress", [VOIGT, STRESS.ravel()], ids=["6", "9"])
def test_plain_names_that_ase_moves_into_a_calculator(tmp_path, stress):
    atoms = lif()
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0, forces=np.ones((len(atoms), 3)), stress=VOIGT)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    numbers = " ".join(map(str, stress))
    text = re.sub(r'stress="[^"]*"', f'stress="{numbers}"', (tmp_path / "a.xyz").read_text())
    assert numbers in text
    (tmp_path / "a.xyz").write_text(text)
    (frame,) = take(tmp_path / "a.xyz").accepted
    labels = frames.labels_of(frame)
    assert labels.energy_eV == -3.0
    np.testing.assert_allclose(labels.stress_eV_per_A3, STRESS)


def test_reference_labels_win_over_a_potentials_own(tmp_path):
    atoms = labelled()
    atoms.calc = SinglePointCalculator(atoms, energy=99.0, forces=np.zeros((len(atoms), 3)))
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (frame,) = take(tmp_path / "a.xyz").accepted
    assert frame.info["REF_energy"] == -10.0
    np.testing.assert_allclose(frame.arrays["REF_forces"], 0.1)


def test_accepted_frames_survive_a_round_trip_under_the_contract(tmp_path):
    first, second = labelled(0, stress=STRESS), labelled(1)
    first.info |= {"system": "lif", "composition": "Li1", "source": "a.h5", "temperature_K": 700}
    ase.io.write(tmp_path / "a.xyz", [first, second], format="extxyz")
    accepted = take(tmp_path / "a.xyz", defaults={"system": "other", "composition": "bulk"}).accepted
    frames.write_frames(tmp_path / "b.extxyz", accepted)
    assert "_JSON" not in (tmp_path / "b.extxyz").read_text()
    one, two = frames.read_labelled(tmp_path / "b.extxyz")
    assert one.info["frame_id"] == frames.frame_id(first)
    assert [one.info[key] for key in ("system", "composition", "source")] == ["lif", "Li1", "a.h5"]
    assert one.info["temperature_K"] == 700
    assert [two.info[key] for key in ("system", "composition")] == ["other", "bulk"]
    assert two.info["source"] == str(tmp_path / "a.xyz")
    np.testing.assert_allclose(frames.labels_of(one).stress_eV_per_A3, STRESS)


def without(atoms, *keys):
    for key in keys:
        (atoms.info if key in atoms.info else atoms.arrays).pop(key)


def put(array, place, value):
    array[place] = value


SPOIL = {
    "no energy": lambda atoms: without(atoms, "REF_energy"),
    "no forces": lambda atoms: without(atoms, "REF_forces"),
    "no energy and no forces": lambda atoms: without(atoms, "REF_energy", "REF_forces"),
    "the energy is not a finite number": lambda atoms: atoms.info.update(REF_energy=np.nan),
    "a force is not a finite number": lambda atoms: put(atoms.arrays["REF_forces"], (3, 1), np.inf),
    "a stress is not a finite number": lambda atoms: atoms.info.update(REF_stress=[np.nan] * 6),
    "a position is not a finite number": lambda atoms: put(atoms.positions, (2, 2), np.nan),
    "a stress has 4 numbers; 6 (Voigt) or 9 are understood": (
        lambda atoms: atoms.info.update(REF_stress=[1.0, 2.0, 3.0, 4.0])
    ),
    "no three-dimensional cell": lambda atoms: (atoms.set_cell([0, 0, 0]), atoms.set_pbc(False)),
    'not periodic along a and b and c (pbc "F F F"): write "T T T" there if the run that labelled it was': (
        lambda atoms: atoms.set_pbc(False)
    ),
    'not periodic along c (pbc "T T F"): write "T T T" there if the run that labelled it was': (
        lambda atoms: atoms.set_pbc([True, True, False])
    ),
    "Li 0 and F 1 are 0.300 A apart, closer than 0.5 A": (
        lambda atoms: put(atoms.positions, 1, atoms.positions[0] + [0.3, 0, 0])
    ),
    "force of 60.00 eV/A on F 1 is above 50 eV/A": lambda atoms: put(
        atoms.arrays["REF_forces"], 1, [0, 60, 0]
    ),
}


def spoil(reason: str):
    atoms = labelled()
    SPOIL[reason](atoms)
    return atoms


@pytest.mark.parametrize("reason", SPOIL)
def test_each_defect_has_its_reason_and_spares_the_others(tmp_path, reason):
    ase.io.write(tmp_path / "a.xyz", [labelled(1), spoil(reason), labelled(2)], format="extxyz")
    result = take(tmp_path / "a.xyz")
    assert result.found == 3
    assert len(result.accepted) == 2
    (row,) = result.rejected
    assert (row.source, row.frame, row.reason) == (str(tmp_path / "a.xyz"), 1, reason)


def test_a_frame_that_says_nothing_of_its_boundaries_is_that_of_a_crystal(tmp_path):
    ase.io.write(tmp_path / "a.xyz", labelled(), format="extxyz")
    text = (tmp_path / "a.xyz").read_text()
    assert text.count('pbc="T T T"') == 1
    (tmp_path / "a.xyz").write_text(text.replace('pbc="T T T"', ""))
    (frame,) = take(tmp_path / "a.xyz").accepted
    assert frame.pbc.all()


@pytest.mark.parametrize("name", ["a.db", "a.json"])
@pytest.mark.parametrize("pbc", [False, (False, True, True)], ids=["molecule", "slab"])
def test_a_database_s_row_in_a_box_without_periodicity_is_rejected(tmp_path, name, pbc):
    boxed, crystal = lif(1), lif(2)
    boxed.pbc = pbc
    with ase.db.connect(tmp_path / name) as database:
        for atoms in (boxed, crystal):
            atoms.calc = SinglePointCalculator(atoms, energy=-10.0, forces=np.zeros((len(atoms), 3)))
            database.write(atoms)
    result = take(tmp_path / name)
    assert len(result.accepted) == 1
    assert result.rejected[0].reason.startswith("not periodic along a")


def test_an_isolated_atom_is_told_as_one_whatever_its_box(tmp_path):
    atom = ase.Atoms(
        "Li", cell=[12, 12, 12], pbc=False, info={"config_type": "IsolatedAtom", "REF_energy": -1.0}
    )
    atom.arrays["REF_forces"] = np.zeros((1, 3))
    ase.io.write(tmp_path / "a.xyz", [labelled(), atom], format="extxyz")
    (row,) = take(tmp_path / "a.xyz").rejected
    assert row.reason.startswith("an isolated atom: its energy belongs to the atomic references")


def test_a_pair_across_the_cell_boundary_is_seen(tmp_path):
    atoms = labelled()
    atoms.positions[1] = atoms.positions[0] + atoms.cell[0] - [0.2, 0, 0]
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    assert "Li 0 and F 1 are 0.200 A apart" in take(tmp_path / "a.xyz").rejected[0].reason


def test_stress_may_be_required(tmp_path):
    ase.io.write(tmp_path / "a.xyz", labelled(), format="extxyz")
    assert take(tmp_path / "a.xyz", require_stress=True).rejected[0].reason == "no stress"


def test_duplicates_are_rejected_across_files_and_name_the_first(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled(0), labelled(1)], format="extxyz")
    ase.io.write(tmp_path / "b.xyz", [labelled(2), labelled(1)], format="extxyz")
    result = take(tmp_path / "a.xyz", tmp_path / "b.xyz")
    assert result.found == 4
    assert [row.reason for row in result.rejected] == [f"duplicate of frame 1 of {tmp_path / 'a.xyz'}"]


def test_a_file_cut_off_loses_its_last_frame_only(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled(0), labelled(1)], format="extxyz")
    text = (tmp_path / "a.xyz").read_text()
    (tmp_path / "a.xyz").write_text(text[: len(text) * 3 // 4])
    result = take(tmp_path / "a.xyz")
    assert len(result.accepted) == 1
    assert result.rejected[0].reason == "cut off: the file ends inside this frame"


def test_mixed_levels_of_theory_are_refused(tmp_path):
    pair = [labelled(0), labelled(1)]
    for atoms, level in zip(pair, ("PBE 40 Ry", "PBE 80 Ry"), strict=True):
        atoms.info["level_of_theory"] = level
    ase.io.write(tmp_path / "a.xyz", pair, format="extxyz")
    with pytest.raises(InputError, match="mixes 2"):
        refuse_unfit(take(tmp_path / "a.xyz"), max_rejected_fraction=0.2)


def test_too_many_rejections_stop_the_set(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [spoil("no energy"), *map(labelled, range(1, 5))], format="extxyz")
    result = take(tmp_path / "a.xyz")
    refuse_unfit(result, max_rejected_fraction=0.2)
    with pytest.raises(InputError, match="1 of 5 frames were rejected"):
        refuse_unfit(result, max_rejected_fraction=0.1)
    with pytest.raises(InputError):
        refuse_unfit(Ingested(accepted=[], rejected=result.rejected), max_rejected_fraction=1.0)


def test_the_table_of_rejected_frames_has_a_header_even_when_empty(tmp_path):
    write_rejected(tmp_path / "r.csv", [])
    assert list(csv.reader((tmp_path / "r.csv").open())) == [["source", "frame", "frame_id", "reason"]]


@pytest.mark.parametrize(
    ("file", "accepted", "found"), [("10-REF_train.xyz", 20, 20), ("step_0_train.xyz", 76, 76)]
)
def test_the_published_lif_sets(shared_data, file, accepted, found):
    result = take(shared_data / "lif" / file)
    assert (len(result.accepted), result.found) == (accepted, found)
    assert all(frames.labels_of(frame).stress_eV_per_A3 is not None for frame in result.accepted)


def test_counts_add_up_on_mptrj(shared_data):
    result = take(shared_data / "mptrj" / "mptrj-random-1k.xyz")
    assert len(result.accepted) + len(result.rejected) == result.found == 1000
    assert all("above 50 eV/A" in row.reason for row in result.rejected)


def test_what_no_reader_knows_is_refused_naming_what_is_understood(tmp_path):
    (tmp_path / "notes.txt").write_text("a shopping list\n")
    with pytest.raises(InputError, match=r"these are read: extended XYZ, pw.x"):
        take(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="format vasp is not known: auto, "):
        take(tmp_path / "notes.txt", file_format="vasp")


def test_real_failed_runs_are_rejected_and_the_good_one_kept(shared_data):
    runs = shared_data / "dft_outputs" / "espresso"
    sources = [runs / "lif_hi.out", *sorted(runs.glob("failed_*/aiida.out"))]
    result = take(*sources)
    assert len(result.accepted) == 1
    assert [row.reason for row in result.rejected] == [
        "interrupted: the output ends without JOB DONE",
        "cut off: pw.x reached its walltime limit",
        "SCF not converged after 2 steps",
    ]
    assert result.accepted[0].info["level_of_theory"] == (
        "PBE pw.x; 110/880 Ry; fixed occupations; F md5 7b9cbdc5; Li md5 8c2b296c"
    )
    assert result.accepted[0].info["energy_kind"] == "free"


def test_two_pseudopotentials_of_one_element_are_a_mixture(shared_data, tmp_path):
    text = (shared_data / "dft_outputs" / "espresso" / "lif_hi.out").read_text()
    (tmp_path / "a.out").write_text(text)
    (tmp_path / "b.out").write_text(
        text.replace("8c2b296c7b0e", "000000007b0e").replace("(  -0.5000000   0.5", "(  -0.5010000   0.5")
    )
    with pytest.raises(InputError, match="mixes 2"):
        refuse_unfit(take(tmp_path), max_rejected_fraction=0.2)


@pytest.fixture
def hopline_run(shared_data, tmp_path):
    """A run folder as Hopline writes it, around a real output."""
    output = shared_data / "dft_outputs" / "espresso" / "lif_hi.out"
    folder = tmp_path / "runs" / "0000"
    folder.mkdir(parents=True)
    shutil.copy(output, folder / "pw.out")
    (folder / "pw.in").touch()
    frame = take(output).accepted[0].copy()
    del frame.arrays["REF_forces"]
    frame.info = {
        "system": "lif",
        "composition": "bulk",
        "source": "a.h5",
        "level_of_theory": "PBE pw.x; 110/880 Ry",
    }
    frames.write_frames(folder / "frame.extxyz", [frame])
    return folder


def test_a_run_folder_takes_its_origin_from_the_frame(hopline_run):
    (frame,) = take(hopline_run.parent).accepted
    assert [frame.info[key] for key in ("system", "composition", "source")] == ["lif", "bulk", "a.h5"]
    assert frame.info["level_of_theory"] == "PBE pw.x; 110/880 Ry"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda atoms: atoms.set_chemical_symbols(["Na", "F"]),
            "another structure: LiF, frame.extxyz holds NaF",
        ),
        (lambda atoms: atoms.positions.__iadd__([[0, 0, 0], [0, 0, 0.01]]), "atom 1 is 0.0100 A off"),
        (lambda atoms: atoms.cell.array.__iadd__(0.01), "its cell differs by 0.0100 A"),
        (
            lambda atoms: atoms.info.update(level_of_theory="PBE pw.x; 80/320 Ry"),
            "the run had 110/880 Ry, the frame was written for: PBE pw.x; 80/320 Ry",
        ),
    ],
)
def test_an_output_of_another_frame_is_rejected(hopline_run, change, reason):
    (frame,) = frames.read_frames(hopline_run / "frame.extxyz")
    change(frame)
    frames.write_frames(hopline_run / "frame.extxyz", [frame])
    assert reason in take(hopline_run.parent).rejected[0].reason


def test_a_run_that_never_ran_and_a_queue_log(hopline_run):
    waiting = hopline_run.parent / "0001"
    shutil.copytree(hopline_run, waiting)
    (waiting / "pw.out").unlink()
    (waiting / "slurm-1.out").write_text("slurmstepd: cancelled\n")
    result = take(hopline_run.parent)
    assert len(result.accepted) == 1
    (row,) = result.rejected
    assert row.reason == "not run: there is no pw.out beside pw.in"
    assert row.frame_id == result.accepted[0].info["frame_id"]


def test_missing_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        take(tmp_path / "nothing.xyz")
    with pytest.raises(InputError, match="no frame was found"):
        take(tmp_path)


def test_a_potentials_own_labels_do_not_stand_in_for_the_references(tmp_path):
    atoms = labelled()
    atoms.info["REF_virial"] = (-STRESS * atoms.get_volume()).ravel()
    other = np.full((len(atoms), 3), 9.0)
    atoms.calc = SinglePointCalculator(atoms, energy=99.0, forces=other, stress=[-9.0] * 6)
    half = labelled(1)
    del half.arrays["REF_forces"]
    half.calc = SinglePointCalculator(half, energy=99.0, forces=other, stress=[-9.0] * 6)
    ase.io.write(tmp_path / "a.xyz", [atoms, half], format="extxyz")
    result = take(tmp_path / "a.xyz")
    np.testing.assert_allclose(frames.labels_of(result.accepted[0]).stress_eV_per_A3, STRESS, atol=1e-8)
    assert [row.reason for row in result.rejected] == ["no forces"]


def test_of_two_labels_that_contradict_neither_is_believed(tmp_path):
    pair = [labelled(0), labelled(0)]
    pair[1].info["REF_energy"] += 0.1
    ase.io.write(tmp_path / "a.xyz", [*pair, labelled(1), labelled(2)], format="extxyz")
    result = take(tmp_path / "a.xyz")
    assert len(result.accepted) == 2
    assert sorted(row.reason for row in result.rejected) == [
        f"contradicts frame {row} of {tmp_path / 'a.xyz'}: the same structure, its energy 12.5 meV/atom off"
        for row in (0, 1)
    ]


def test_duplicates_are_no_loss(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [labelled(0)] * 5, format="extxyz")
    result = take(tmp_path / "a.xyz")
    assert len(result.rejected) == 4
    refuse_unfit(result, max_rejected_fraction=0.0)


@pytest.mark.parametrize("scale", [1e-10, 1e-3])
def test_a_cell_in_another_unit_is_a_reason_and_takes_no_time(tmp_path, scale):
    atoms = labelled()
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    ase.io.write(tmp_path / "a.xyz", [atoms, labelled(1)], format="extxyz")
    assert (
        take(tmp_path / "a.xyz").rejected[0].reason.endswith(("is it given in A?", "three-dimensional cell"))
    )


def test_a_run_with_another_functional_than_its_frame_says(hopline_run):
    (frame,) = frames.read_frames(hopline_run / "frame.extxyz")
    frame.info["level_of_theory"] = "LDA pw.x; 110/880 Ry; gaussian 0.01 Ry"
    frames.write_frames(hopline_run / "frame.extxyz", [frame])
    assert (
        take(hopline_run.parent)
        .rejected[0]
        .reason.startswith("the run had PBE pw.x, the frame was written for: LDA")
    )


def test_spin_is_part_of_the_theory(shared_data):
    from hopline.labels.espresso_output import read_output
    from hopline.labels.espresso_xml import parse_xml

    run = shared_data / "dft_outputs" / "espresso" / "tot_magnetization"
    assert "spin-polarised" in read_output(run / "aiida.out").theory
    assert "spin-polarised" in parse_xml((run / "data-file-schema.xml").read_text()).theory
