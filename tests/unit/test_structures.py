"""Interstitial sites where crystallography puts them."""

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hopline import structures
from hopline.console import InputError

A = 4.08
TOLERANCE_A = 1e-6


def radii(crystal):
    return np.array([void.radius_A for void in structures.find_voids(crystal)])


def scaled(crystal, voids):
    """Return fractional coordinates of voids, wrapped into [0, 1)."""
    fractional = crystal.cell.scaled_positions(np.array([void.position_A for void in voids]))
    return np.round(fractional, 6) % 1.0


def test_rocksalt_voids_are_the_centres_of_the_small_cubes():
    crystal = structures.build_prototype("rocksalt", ["Li", "F"], [A])
    voids = structures.find_voids(crystal)
    assert len(voids) == 8
    np.testing.assert_allclose([void.radius_A for void in voids], A * np.sqrt(3) / 4, atol=TOLERANCE_A)
    expected = np.array([[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)])
    np.testing.assert_allclose(np.array(sorted(scaled(crystal, voids).tolist())), expected, atol=1e-6)


def test_fcc_has_octahedral_voids_then_tetrahedral_ones():
    crystal = structures.build_prototype("fcc", ["Ni"], [A])
    expected = [A / 2] * 4 + [A * np.sqrt(3) / 4] * 8
    np.testing.assert_allclose(radii(crystal), expected, atol=TOLERANCE_A)
    octahedral = scaled(crystal, structures.find_voids(crystal)[:4])
    known = [[0, 0, 0.5], [0, 0.5, 0], [0.5, 0, 0], [0.5, 0.5, 0.5]]
    np.testing.assert_allclose(np.array(sorted(octahedral.tolist())), known, atol=1e-6)


def test_bcc_voids_are_tetrahedral():
    crystal = structures.build_prototype("bcc", ["Fe"], [A])
    np.testing.assert_allclose(radii(crystal), [A * np.sqrt(5) / 4] * 12, atol=TOLERANCE_A)
    near = scaled(crystal, structures.find_voids(crystal))
    assert all(sorted(site.tolist()) in ([0, 0.25, 0.5], [0, 0.5, 0.75]) for site in near)


def test_ideal_hcp_has_two_octahedral_and_four_tetrahedral_voids():
    crystal = structures.build_prototype("hcp", ["Mg"], [3.2, 3.2 * np.sqrt(8 / 3)])
    expected = [3.2 / np.sqrt(2)] * 2 + [3.2 * np.sqrt(3 / 8)] * 4
    np.testing.assert_allclose(radii(crystal), expected, atol=TOLERANCE_A)


@settings(max_examples=20, deadline=None)
@given(shift=st.tuples(*[st.floats(-5, 5)] * 3), angle=st.floats(0, 180))
@example(shift=(-4.838564949620494, -0.4913876741150016, 0.0), angle=87.51073364442036)
def test_voids_do_not_depend_on_where_the_crystal_lies(shift, angle):
    crystal = structures.build_prototype("hcp", ["Mg"], [3.21, 5.21])
    known = radii(crystal)
    crystal.translate(shift)
    crystal.wrap()
    crystal.rotate(angle, (1, 2, 3), rotate_cell=True)
    np.testing.assert_allclose(radii(crystal), known, atol=1e-5)


def test_voids_of_a_supercell_are_those_of_its_cell_repeated():
    crystal = structures.build_prototype("rocksalt", ["Li", "F"], [A], conventional=False)
    assert len(structures.find_voids(crystal)) == 2
    assert len(structures.find_voids(crystal.repeat((2, 1, 3)))) == 12


@pytest.mark.parametrize("shear_A", [(0.0, 0.0, 0.0), (10.5, 0.0, 0.0), (10.5, -6.0, 7.5)])
def test_voids_do_not_depend_on_how_the_lattice_is_cut_into_cells(shear_A):
    """Atoms on a flat square lattice, sheets far apart: the void between sheets is wider than the lattice."""
    x, y, z = shear_A
    crystal = Atoms("C", positions=[[40, 0, -30]], cell=[[1.5, 0, 0], [z, 1.5, 0], [x, y, 12]], pbc=True)
    found = structures.find_voids(crystal)
    assert len(found) == 1
    assert found[0].radius_A == pytest.approx(np.sqrt(6.0**2 + 2 * 0.75**2), abs=TOLERANCE_A)
    inside = crystal.cell.scaled_positions(found[0].position_A)
    assert ((inside > -1e-5) & (inside < 1)).all()


def test_interstitials_are_placed_as_far_apart_as_can_be():
    host = structures.build_prototype("fcc", ["Ni"], [A]).repeat((2, 2, 2))
    filled = structures.add_interstitials(host, "H", 2)
    assert filled.get_chemical_formula() == "H2Ni32"
    # the farthest point of a cubic box of 2 a is its centre, an octahedral site away by (a, a, a)
    assert filled.get_distance(-1, -2, mic=True) == pytest.approx(A * np.sqrt(3), abs=1e-6)
    distances = filled.get_distances(-1, range(32), mic=True)
    assert distances.min() == pytest.approx(A / 2, abs=1e-6)


def test_placing_is_repeatable_and_leaves_the_host_alone():
    host = structures.build_prototype("rocksalt", ["Li", "F"], [A]).repeat((2, 2, 1))
    before = host.copy()
    first, second = (structures.add_interstitials(host, "Li", 3) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert host == before
    assert structures.add_interstitials(host, "Li", 0) == host


def test_more_interstitials_than_voids_are_refused():
    host = structures.build_prototype("rocksalt", ["Li", "F"], [A])
    assert len(structures.add_interstitials(host, "Li", 8)) == 16
    with pytest.raises(InputError, match=r"8 widest voids, 9 Li do not fit"):
        structures.add_interstitials(host, "Li", 9)


@pytest.mark.parametrize(("species", "count"), [("Qq", 1), ("Li", -1)])
def test_interstitials_that_cannot_be_are_refused(species, count):
    host = structures.build_prototype("rocksalt", ["Li", "F"], [A])
    with pytest.raises(InputError):
        structures.add_interstitials(host, species, count)


@pytest.mark.parametrize(
    ("prototype", "species", "constants"),
    [
        ("rocksolt", ["Li", "F"], [A]),
        ("rocksalt", ["Li"], [A]),
        ("fcc", ["Qq"], [A]),
        ("fcc", ["Ni"], [-1.0]),
        ("fcc", ["Ni"], [0.0]),
        ("hcp", ["Mg"], [3.2, float("nan")]),
    ],
)
def test_a_prototype_that_cannot_be_is_refused(prototype, species, constants):
    with pytest.raises(InputError):
        structures.build_prototype(prototype, species, constants)


def test_a_host_is_read_from_cif(tmp_path):
    crystal = ase.build.bulk("LiF", "rocksalt", a=A, cubic=True)
    ase.io.write(tmp_path / "LiF.cif", crystal)
    host = structures.read_host(tmp_path / "LiF.cif")
    assert sorted(host.symbols) == sorted(crystal.symbols)
    assert host.pbc.all()
    np.testing.assert_allclose(host.cell.cellpar(), crystal.cell.cellpar(), atol=1e-6)
    np.testing.assert_allclose(radii(host)[:8], A * np.sqrt(3) / 4, atol=1e-4)


def test_a_host_without_a_cell_or_unreadable_is_refused(tmp_path):
    ase.io.write(tmp_path / "molecule.xyz", Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]]))
    (tmp_path / "broken.cif").write_text("data_nothing")
    with pytest.raises(InputError, match="no three-dimensional cell"):
        structures.read_host(tmp_path / "molecule.xyz")
    with pytest.raises(InputError, match=r"broken\.cif"):
        structures.read_host(tmp_path / "broken.cif")
    with pytest.raises(InputError, match="does not exist"):
        structures.read_host(tmp_path / "none.cif")
