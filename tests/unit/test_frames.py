"""A frame keeps its identity and its labels."""

import io

import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import label, rocksalt_lif, two_atoms

from hopline import frames
from hopline.console import InputError

lengths = st.floats(-1e4, 1e4, allow_nan=False)


def round_trip(atoms):
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    text.seek(0)
    return ase.io.read(text, format="extxyz")


@settings(max_examples=60, deadline=None)
@given(
    positions=arrays(float, (4, 3), elements=lengths), tilt=arrays(float, (3, 3), elements=st.floats(-2, 2))
)
def test_a_frame_keeps_its_id_through_extended_xyz(positions, tilt):
    atoms = Atoms("LiFMgH", positions=positions, cell=np.diag([7.0, 8.0, 9.0]) + tilt, pbc=True)
    assert frames.frame_id(round_trip(atoms)) == frames.frame_id(atoms)


def test_a_frame_keeps_its_id_through_two_writings(tmp_path):
    atoms = rocksalt_lif(seed=4)
    atoms.positions += np.random.default_rng(0).normal(scale=1 / 3, size=(8, 3))
    once = frames.frame_id(atoms)
    for _ in range(2):
        frames.write_frames(tmp_path / "one.extxyz", [atoms])
        atoms = frames.read_frames(tmp_path / "one.extxyz")[0]
        assert atoms.info["frame_id"] == once == frames.frame_id(atoms)


@settings(max_examples=40, deadline=None)
@given(atom=st.integers(0, 7), axis=st.integers(0, 2), move_A=st.floats(1e-7, 1.0) | st.floats(-1.0, -1e-7))
def test_any_move_of_an_atom_is_another_frame(atom, axis, move_A):
    atoms = rocksalt_lif()
    before = frames.frame_id(atoms)
    atoms.positions[atom, axis] += move_A
    assert frames.frame_id(atoms) != before


def test_species_cell_and_order_are_part_of_the_identity():
    atoms = rocksalt_lif()
    others = [atoms.copy() for _ in range(3)]
    others[0].numbers[0] = 11
    others[1].set_cell(atoms.cell.array * (1 + 1e-7))
    others[2] = atoms[::-1]
    ids = {frames.frame_id(one) for one in [atoms, *others]}
    assert len(ids) == 4


def test_negative_zero_and_what_rounds_to_it_are_zero():
    zero, negative, tiny = two_atoms(), two_atoms(), two_atoms()
    negative.positions[0] = -0.0
    tiny.positions[0] = -4e-9
    assert frames.frame_id(zero) == frames.frame_id(negative) == frames.frame_id(tiny)
    assert frames.frame_id(zero) != frames.frame_id(Atoms("LiF", zero.positions - 10, cell=zero.cell))


def test_labels_do_not_change_the_identity():
    atoms = rocksalt_lif()
    assert frames.frame_id(label(atoms.copy(), energy_eV=-3)) == frames.frame_id(atoms)


@pytest.mark.parametrize("shape", ["voigt", "nine", "matrix"])
def test_a_stress_is_understood_in_each_of_its_shapes(shape):
    matrix = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    given_as = {"voigt": [1, 2, 3, 4, 5, 6], "nine": matrix.ravel(), "matrix": matrix}[shape]
    np.testing.assert_array_equal(frames.stress_matrix(given_as), matrix)
    atoms = label(two_atoms(), stress=given_as)
    np.testing.assert_array_equal(frames.labels_of(atoms).stress_eV_per_A3, matrix)
    np.testing.assert_allclose(frames.labels_of(round_trip(atoms)).stress_eV_per_A3, matrix)


def test_a_stress_of_five_numbers_is_refused():
    with pytest.raises(InputError, match="5 numbers"):
        frames.stress_matrix(np.ones(5))


def test_labels_survive_a_file(tmp_path):
    forces = np.random.default_rng(1).normal(size=(8, 3))
    made = label(rocksalt_lif(), energy_eV=-51.25, forces=forces, stress=np.arange(6) / 7, temperature_K=300)
    frames.write_frames(tmp_path / "set.extxyz", [made, made])
    read = frames.read_labelled(tmp_path / "set.extxyz")
    labels = frames.labels_of(read[1])
    assert labels.energy_eV == -51.25
    np.testing.assert_allclose(labels.forces_eV_per_A, forces, atol=1e-8)
    np.testing.assert_allclose(labels.stress_eV_per_A3, frames.stress_matrix(np.arange(6) / 7), atol=1e-8)
    assert read[0].info["source"] == "bulk/300K"
    assert read[0].info["temperature_K"] == 300


@pytest.mark.parametrize("what", ["energy", "forces", "nan energy", "nan force", "infinite stress"])
def test_a_frame_without_whole_labels_is_refused(what):
    atoms = label(two_atoms(), stress=np.zeros((3, 3)))
    if what == "energy":
        del atoms.info["REF_energy"]
    elif what == "forces":
        del atoms.arrays["REF_forces"]
    elif what == "nan energy":
        atoms.info["REF_energy"] = float("nan")
    elif what == "nan force":
        atoms.arrays["REF_forces"][1, 2] = np.nan
    else:
        atoms.info["REF_stress"] = np.full((3, 3), np.inf)
    with pytest.raises(InputError, match=atoms.info["frame_id"]):
        frames.labels_of(atoms)


@pytest.mark.parametrize(
    "content", ["", "not a frame", "3\nProperties=species:S:1:pos:R:3\nLi 0 0 0\nF 1 1\n", "2\n\nLi 0 0 0\n"]
)
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.extxyz").write_text(content)
    with pytest.raises(InputError, match=r"broken\.extxyz"):
        frames.read_frames(tmp_path / "broken.extxyz")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.extxyz does not exist"):
        frames.read_frames(tmp_path / "nowhere.extxyz")


def test_a_cut_off_file_is_refused(tmp_path):
    frames.write_frames(tmp_path / "set.extxyz", [rocksalt_lif(seed=seed) for seed in range(3)])
    text = (tmp_path / "set.extxyz").read_text()
    (tmp_path / "set.extxyz").write_text(text[: int(0.9 * len(text))])
    with pytest.raises(InputError, match="not a whole extended XYZ"):
        frames.read_frames(tmp_path / "set.extxyz")


def test_one_set_has_one_level_of_theory(tmp_path):
    mixed = [label(two_atoms(), level_of_theory=level) for level in ("PBE, 80 Ry", "PBE, 60 Ry")]
    with pytest.raises(InputError, match=r"mixes 2: PBE, 60 Ry \(1 .* bulk/300K\) \| PBE, 80 Ry \(1 "):
        frames.level_of_theory(mixed)
    frames.write_frames(tmp_path / "mixed.extxyz", mixed)
    with pytest.raises(InputError, match="mixes 2"):
        frames.read_labelled(tmp_path / "mixed.extxyz")
    with pytest.raises(InputError, match="mixes 2"):
        frames.level_of_theory([mixed[0], label(two_atoms())])
    assert frames.level_of_theory(mixed[:1]) == "PBE, 80 Ry"
