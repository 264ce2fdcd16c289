"""DeePMD systems as dpdata writes them, as people lay them out by hand, and damaged."""

import pickle
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dpdata
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from label_files import labelled_frames, same

from hopline.labels.candidates import Broken
from hopline.labels.readers import deepmd

SPOILT = {
    "empty": b"",
    "binary": random.Random(1).randbytes(3000),
    "UTF-16": "0 0 0 1 größer\n".encode("utf-16") * 50,
    "header only": b"\x93NUMPY",
    "no shape": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}",
    "endless": b"\x93NUMPY\x01\x00F\x00"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999, 24)}"[:69]
    + b"\n",
}


def by_dpdata(folder, frames, **options):
    """Write frames of one composition as dpdata does, in double precision."""
    system = dpdata.LabeledSystem()
    for atoms in frames:
        system.append(dpdata.LabeledSystem(atoms, fmt="ase/structure"))
    system.to("deepmd/npy", str(folder), prec=np.float64, **options)
    return folder


def by_hand(folder, frames):
    """Write frames in the order that their atoms have."""
    (folder / "set.000").mkdir(parents=True)
    elements = sorted(set(frames[0].symbols), reverse=True)
    (folder / "type_map.raw").write_text("".join(f"{element}\n" for element in elements))
    (folder / "type.raw").write_text("".join(f"{elements.index(symbol)}\n" for symbol in frames[0].symbols))
    arrays = {
        "coord": [atoms.positions.ravel() for atoms in frames],
        "box": [atoms.cell.array.ravel() for atoms in frames],
        "energy": [atoms.get_potential_energy() for atoms in frames],
        "force": [atoms.get_forces().ravel() for atoms in frames],
        "virial": [-atoms.get_volume() * atoms.get_stress(voigt=False).ravel() for atoms in frames],
    }
    for name, rows in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", rows)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ein Ordner mit Ümlauten"


def test_what_dpdata_writes_comes_back_in_several_sets(folder):
    frames = labelled_frames(5)
    by_dpdata(folder, frames, set_size=2)
    peer = dpdata.LabeledSystem(str(folder), fmt="deepmd/npy")
    found = list(deepmd.read(folder))
    assert [(Path(c.source).name, c.frame) for c in found] == [
        ("set.000", 0), ("set.000", 1), ("set.001", 0), ("set.001", 1), ("set.002", 0),
    ]  # fmt: skip
    assert {c.trajectory for c in found} == {str(folder)}
    for row, candidate in enumerate(found):
        same(candidate, frames[row])
        np.testing.assert_allclose(candidate.atoms.positions, peer["coords"][row], rtol=0, atol=1e-8)
        np.testing.assert_allclose(candidate.forces_eV_per_A, peer["forces"][row], rtol=0, atol=1e-8)


def test_atoms_in_any_order_keep_it(folder):
    frames = labelled_frames(3)
    assert str(frames[0].symbols) == "LiFLiFLiFLiF"
    for candidate, atoms in zip(deepmd.read(by_hand(folder, frames)), frames, strict=True):
        same(candidate, atoms)


def test_single_precision_as_dpdata_writes_by_default(folder):
    frames = labelled_frames(2)
    by_hand(folder, frames)
    for path in (folder / "set.000").iterdir():
        np.save(path, np.load(path).astype(np.float32))
    for candidate, atoms in zip(deepmd.read(folder), frames, strict=True):
        same(candidate, atoms, tolerance=1e-5)


def test_other_shapes_and_memory_orders_of_the_same_numbers(folder):
    frames = labelled_frames(3)
    inside = by_hand(folder, frames) / "set.000"
    for name in ("coord", "force"):
        np.save(inside / f"{name}.npy", np.load(inside / f"{name}.npy").reshape(3, 8, 3))
    np.save(inside / "box.npy", np.asfortranarray(np.load(inside / "box.npy")))
    np.save(inside / "energy.npy", np.load(inside / "energy.npy")[:, None])
    for candidate, atoms in zip(deepmd.read(folder), frames, strict=True):
        same(candidate, atoms)


def test_frames_are_read_in_blocks(folder, monkeypatch):
    frames = labelled_frames(7)
    by_hand(folder, frames)
    monkeypatch.setattr(deepmd, "BLOCK_VALUES", 2 * 3 * 8 + 1)
    for candidate, atoms in zip(deepmd.read(folder), frames, strict=True):
        same(candidate, atoms)


def test_the_sign_of_the_virial_by_finite_differences(folder):
    (atoms,) = labelled_frames(1)
    atoms.calc = LennardJones(sigma=1.9, epsilon=0.3, rc=6.0, smooth=True)
    atoms.get_stress()
    (found,) = deepmd.read(by_dpdata(folder, [atoms]))
    step = 1e-4
    for i, j in ((0, 0), (1, 2), (2, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        derivative = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert found.stress[i, j] == pytest.approx(derivative, rel=1e-4, abs=1e-8)


def in_order_of(atoms, candidate):
    """Return a candidate with its atoms as in the frame written: dpdata groups those of unlike systems by element."""
    apart = np.linalg.norm(atoms.positions[:, None] - candidate.atoms.positions[None], axis=2)
    order = apart.argmin(axis=1)
    assert sorted(order) == list(range(len(atoms)))
    forces = candidate.forces_eV_per_A[order]
    return replace(candidate, atoms=candidate.atoms[order], forces_eV_per_A=forces)


def test_mixed_types_with_and_without_atoms_that_only_pad(folder):
    frames = labelled_frames(4)
    rows = ([0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4], [0, 2, 4, 6, 1], list(range(8)))
    written = []
    for atoms, keep in zip(frames, rows, strict=True):
        part = atoms[keep]
        part.calc = SinglePointCalculator(
            part,
            energy=atoms.get_potential_energy(),
            forces=atoms.get_forces()[keep],
            stress=atoms.get_stress(),
        )
        written.append(part)
    for padding in (None, 8):
        shutil.rmtree(folder, ignore_errors=True)
        systems = dpdata.MultiSystems(*(dpdata.LabeledSystem(part, fmt="ase/structure") for part in written))
        systems.to("deepmd/npy/mixed", str(folder), prec=np.float64, atom_numb_pad=padding)
        systems = [path.parent for path in folder.rglob("type.raw")]
        assert len(systems) == (1 if padding else 3)
        found = {c.energy_eV: c for system in systems for c in deepmd.read(system)}
        assert len(found) == 4
        for part in written:
            same(in_order_of(part, found[part.get_potential_energy()]), part)


def test_a_mixed_frame_of_a_type_that_is_not_named(folder):
    inside = by_hand(folder, labelled_frames(3)) / "set.000"
    types = np.tile([0, 1] * 4, (3, 1))
    types[1, 5] = 7
    np.save(inside / "real_atom_types.npy", types)
    reasons = [c.reason for c in deepmd.read(folder)]
    assert reasons == ["", "an atom is of type 7, type_map.raw names 2 (0 to 1)", ""]


def test_a_system_without_periodicity_has_no_cell_and_no_stress(folder):
    (by_hand(folder, labelled_frames(1)) / "nopbc").touch()
    (found,) = deepmd.read(folder)
    assert found.atoms.cell.rank == 0
    assert not found.atoms.pbc.any()
    assert found.stress is None


def test_labels_that_are_not_there_are_none(folder):
    inside = by_hand(folder, labelled_frames(2)) / "set.000"
    for name in ("energy", "force", "virial"):
        (inside / f"{name}.npy").unlink()
    for found in deepmd.read(folder):
        assert (found.reason, found.energy_eV, found.forces_eV_per_A, found.stress) == ("", None, None, None)


def test_files_of_different_length_are_refused_with_their_counts(folder):
    inside = by_hand(folder, labelled_frames(3)) / "set.000"
    np.save(inside / "force.npy", np.load(inside / "force.npy")[:2])
    (found,) = deepmd.read(folder)
    assert "different numbers of frames: coord.npy 3, box.npy 3, energy.npy 3, force.npy 2" in found.reason


def test_a_broken_set_does_not_take_the_others_with_it(folder):
    by_dpdata(folder, labelled_frames(5), set_size=2)
    (folder / "set.001" / "force.npy").write_bytes(b"")
    found = list(deepmd.read(folder))
    assert [bool(c.reason) for c in found] == [False, False, True, False]
    assert "force.npy is cut off, damaged or no array of numbers" in found[2].reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("type_map.raw", None, "there is no type_map.raw"),
        ("type_map.raw", "Li", "an atom is of type 1, type_map.raw names 1"),
        ("type_map.raw", "Li Xx", "type_map.raw names 'Xx': that is no element"),
        ("type_map.raw", "Li X", "type_map.raw names 'X': that is no element"),
        ("type.raw", "", "type.raw is empty"),
        ("type.raw", "0 1 0 1 0 1 0 one", "holds 'one' where the number of a type is expected"),
        ("type.raw", "0 1 0 1 0 1 0 -1", "holds '-1'"),
        ("type.raw", "0 1 0 1 0 1 0 ²", "holds '²'"),
        ("type.raw", "0 1 0 1 0 1 0 99999999999999999999999", "an atom is of type"),
        ("type.raw", "0 1 0 1 0 1 0", "21 numbers a frame are expected"),
    ],
)
def test_types_that_tell_no_elements(folder, name, content, reason):
    by_hand(folder, labelled_frames(1))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(f"{content}\n")
    assert reason in only_reason(folder)


def only_reason(folder):
    """Return why a system was refused, whole or in each of its rows for the same reason."""
    try:
        (reason,) = {found.reason for found in deepmd.read(folder)}
    except Broken as error:
        return str(error)
    return reason


def test_a_missing_cell_and_missing_positions(folder):
    inside = by_hand(folder, labelled_frames(1)) / "set.000"
    (inside / "box.npy").unlink()
    assert only_reason(folder).startswith("there is no box.npy, and no file nopbc")
    (inside / "coord.npy").unlink()
    assert only_reason(folder) == "there is no coord.npy"


@pytest.mark.parametrize("content", SPOILT)
@pytest.mark.parametrize(
    "name",
    [
        "type.raw",
        "type_map.raw",
        *(f"set.000/{n}.npy" for n in ("coord", "box", "energy", "force", "virial")),
    ],
)
def test_spoilt_files(folder, name, content):
    by_hand(folder, labelled_frames(3))
    (folder / name).write_bytes(SPOILT[content])
    assert only_reason(folder)


class Bomb:
    """An object whose unpickling leaves a folder behind."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (Path.mkdir, (self.victim,))


@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "virial", "real_atom_types"])
def test_a_pickle_is_never_opened(folder, tmp_path, name):
    by_hand(folder, labelled_frames(3))
    path, victim = folder / "set.000" / f"{name}.npy", tmp_path / "it ran"
    np.save(path, np.array([Bomb(victim)] * 3, dtype=object), allow_pickle=True)
    assert "Python objects" in only_reason(folder)
    path.write_bytes(pickle.dumps(Bomb(victim)))
    assert only_reason(folder)
    with path.open("wb") as file:
        np.savez(file, a=np.array([Bomb(victim)], dtype=object))
    assert only_reason(folder)
    assert not victim.exists()


def test_numbers_of_no_use(folder):
    inside = by_hand(folder, labelled_frames(1)) / "set.000"
    np.save(inside / "energy.npy", np.array(["-1.0"]))
    assert "energy.npy holds <U4 of shape (1,)" in only_reason(folder)
    np.save(inside / "energy.npy", np.array(-1.0))
    assert "energy.npy holds float64 of shape ()" in only_reason(folder)


@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "virial"])
def test_wherever_it_is_cut_off_nothing_false_comes_through(folder, name):
    by_hand(folder, labelled_frames(4))
    path = folder / "set.000" / f"{name}.npy"
    content = path.read_bytes()
    for cut in random.Random(7).choices(range(len(content)), k=50):
        path.write_bytes(content[:cut])
        (found,) = deepmd.read(folder)
        assert found.reason, cut
    path.write_bytes(content + b"\0")
    assert "is damaged" in only_reason(folder)


@pytest.mark.parametrize("name", ["type.raw", "type_map.raw"])
def test_text_that_was_cut_off(folder, name):
    frames = labelled_frames(3)
    by_hand(folder, frames)
    content = (folder / name).read_bytes()
    for cut in range(len(content)):
        (folder / name).write_bytes(content[:cut])
        assert only_reason(folder), cut


def test_an_element_that_lost_a_letter(folder):
    by_hand(folder, labelled_frames(1))
    (folder / "type_map.raw").write_text("Mg\nC")
    assert only_reason(folder).startswith("type_map.raw may be cut off: its last line has no end")


MEASURED = """
import itertools, sys
from pathlib import Path
from hopline.labels.readers import deepmd
from memory import peak_memory_kB
before = peak_memory_kB()
found = [(c.reason, len(c.atoms)) for c in itertools.islice(deepmd.read(Path(sys.argv[1])), 60)]
print(len(found), set(found), peak_memory_kB() - before)
"""


def test_two_gigabytes_after_a_valid_header_are_read_in_little_memory(tmp_path, repository):
    n_atoms, n_frames = 200_000, 450
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type.raw").write_text("0\n" * n_atoms)
    (tmp_path / "type_map.raw").write_text("Li\n")
    (tmp_path / "nopbc").touch()
    array = np.lib.format.open_memmap(
        tmp_path / "set.000" / "coord.npy", mode="w+", dtype=np.float64, shape=(n_frames, 3 * n_atoms)
    )
    assert array.nbytes > 2_000_000_000
    del array
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    env = {"PYTHONPATH": f"{repository / 'scripts'}:{repository / 'tests'}", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    count, *what, extra_kB = said.split()
    assert (int(count), " ".join(what)) == (60, str({("", n_atoms)}))
    assert int(extra_kB) < 100_000


def test_what_is_a_system(folder):
    by_hand(folder, labelled_frames(1))
    assert deepmd.is_system(folder)
    assert not deepmd.is_system(folder / "set.000")
    assert not deepmd.recognises("type.raw", b"0\n1\n")
    (folder / "set.000").rename(folder / "no set")
    assert not deepmd.is_system(folder)
