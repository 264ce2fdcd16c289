"""MACE's energies in our calculator: the model's own, and smooth in float32 whatever the atoms' references are."""

import copy

import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
import numpy as np
import pytest
import torch
from ase import Atoms
from foundations import HEADS, two_heads
from mace import modules
from mace.data import get_neighborhood
from small import rocksalt_lif

from hopline.console import InputError
from hopline.potentials.mace import MaceCalculator

STEPS_EV_PER_ATOM = 1e-5
REFERENCES_EV = [[-1e4, -2e4, -3e4, -4e4], [-1.1e4, -2.1e4, -3.1e4, -4.1e4]]
"""As of a code that counts all electrons. In float32 numbers of 3e6 eV, 216 atoms' energy, are 0.25 eV apart."""


def plain_mace():
    """Return a model of the older kind, whose total energy is the sum of contributions, and its two heads."""
    from e3nn import o3

    torch.manual_seed(3)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.MACE(
        r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, interaction_cls=interaction,
        interaction_cls_first=interaction, num_interactions=2, num_elements=2,
        hidden_irreps=o3.Irreps("4x0e + 4x1o"), MLP_irreps=o3.Irreps("4x0e"), gate=torch.nn.functional.silu,
        atomic_energies=np.array(REFERENCES_EV)[:, :2], avg_num_neighbors=20.0, atomic_numbers=[3, 9],
        correlation=2, heads=list(HEADS), pair_repulsion=True,
    )  # fmt: skip


def scaled_mace():
    model = two_heads("float32")
    model.atomic_energies_fn.atomic_energies[:] = torch.tensor(REFERENCES_EV)
    return model


def upstreams(model, atoms, head):
    """Return MACE's own energy, forces and stress, of its own neighbour list."""
    edge_index, shifts, unit_shifts, cell = get_neighborhood(
        atoms.positions, float(model.r_max), (True, True, True), atoms.cell.array.copy()
    )
    species = np.searchsorted(model.atomic_numbers.numpy(), atoms.numbers)
    given = {
        "node_attrs": np.eye(len(model.atomic_numbers))[species], "positions": atoms.positions, "cell": cell,
        "shifts": shifts, "unit_shifts": unit_shifts.astype(float),
    }  # fmt: skip
    out = model(
        {name: torch.tensor(value) for name, value in given.items()}
        | {
            "edge_index": torch.tensor(edge_index, dtype=torch.long),
            "batch": torch.zeros(len(atoms), dtype=torch.long),
            "ptr": torch.tensor([0, len(atoms)]),
            "head": torch.tensor([HEADS.index(head)]),
        },
        compute_stress=True,
    )
    return [out[name].detach().numpy()[row] for name, row in (("energy", 0), ("forces", ...), ("stress", 0))]


def small_and_skewed():
    """Two atoms in a cell shorter than half the cutoff, one of them two cells away."""
    cell = [[1.9, 0.0, 0.1], [0.4, 3.0, 0.0], [0.0, 0.7, 3.4]]
    atoms = Atoms("LiF", scaled_positions=[[0.1, 0.0, 0.0], [0.5, 0.4, 0.6]], cell=cell, pbc=True)
    atoms.positions[1] += 2 * atoms.cell[0] - atoms.cell[2]
    return atoms


class Unknown(modules.ScaleShiftMACE):
    """A kind of MACE that Hopline has never heard of; it may need more than vectors between neighbours."""


def unknown_mace():
    model = two_heads("float64")
    model.__class__ = Unknown
    return model


@pytest.mark.parametrize("atoms", [rocksalt_lif(), small_and_skewed()], ids=["cubic", "small and skewed"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("make", [plain_mace, scaled_mace, unknown_mace])
def test_energy_forces_and_stress_are_the_models_own(make, head, atoms):
    calculator = MaceCalculator(make(), dtype="float64", head=head)
    energy_eV, forces, stress = upstreams(calculator.model, atoms, head)
    [found] = calculator.predict([atoms], stress=True)
    assert found.energy_eV == pytest.approx(float(energy_eV), rel=1e-14)
    np.testing.assert_allclose(found.forces_eV_per_A, forces, rtol=0, atol=1e-12 * np.abs(forces).max())
    np.testing.assert_allclose(found.stress_eV_per_A3, stress, rtol=0, atol=1e-12 * np.abs(stress).max())


@pytest.mark.parametrize("kind", [modules.ScaleShiftMACE, Unknown])
def test_far_from_the_cell_float32_loses_nothing(kind):
    model = two_heads("float32")
    model.__class__ = kind
    calculator = MaceCalculator(model, dtype="float32", head=HEADS[0])
    near, far = rocksalt_lif(), rocksalt_lif()
    far.positions += 10_000 * far.cell[1]
    far.positions[3] -= 500 * far.cell[0]
    here, there = (calculator.predict([atoms], stress=False)[0] for atoms in (near, far))
    np.testing.assert_allclose(there.forces_eV_per_A, here.forces_eV_per_A, rtol=0, atol=2e-6)


def test_an_atom_without_neighbours_has_its_reference_energy_and_no_force():
    for make in (plain_mace, scaled_mace):
        calculator = MaceCalculator(make(), dtype="float64", head=HEADS[0])
        [found] = calculator.predict([Atoms("Li", cell=np.eye(3) * 20, pbc=True)], stress=True)
        assert found.energy_eV == pytest.approx(REFERENCES_EV[0][0], abs=1.0)
        assert not found.forces_eV_per_A.any()
        assert not found.stress_eV_per_A3.any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to accelerate on")
@pytest.mark.parametrize("how", ["cuequivariance", "compile"])
def test_acceleration_is_refused_without_a_gpu(how):
    with pytest.raises(InputError, match=f"accelerate: {how} is for NVIDIA GPUs, and torch sees none"):
        MaceCalculator(two_heads(), dtype="float64", head=None, accelerate=how)


def test_an_unknown_acceleration_is_refused():
    with pytest.raises(InputError, match="no acceleration 'cueq'; there are none, cuequivariance, compile"):
        MaceCalculator(two_heads(), dtype="float64", head=None, accelerate="cueq")


@pytest.mark.parametrize("make", [plain_mace, scaled_mace])
def test_in_float32_the_energy_of_heavy_atoms_is_smooth(make):
    model = make()
    calculators = {
        dtype: MaceCalculator(copy.deepcopy(model), dtype=dtype, head=HEADS[1])
        for dtype in ("float32", "float64")
    }
    atoms = rocksalt_lif((3, 3, 3))
    energies_eV = {dtype: [] for dtype in calculators}
    for _ in range(12):
        atoms.positions[:8, 0] += 0.05
        for dtype, calculator in calculators.items():
            energies_eV[dtype].append(calculator.get_property("energy", atoms))
    changes_eV = {dtype: np.array(energies) - energies[0] for dtype, energies in energies_eV.items()}
    assert np.abs(np.diff(changes_eV["float64"])).max() > 20 * STEPS_EV_PER_ATOM * len(atoms)
    noise_eV = np.abs(changes_eV["float32"] - changes_eV["float64"]).max()
    assert noise_eV < STEPS_EV_PER_ATOM * len(atoms)
    assert energies_eV["float32"][0] == pytest.approx(energies_eV["float64"][0], abs=1e-3 * len(atoms))


def test_forces_and_stress_know_nothing_of_references():
    light = two_heads("float32")
    answers = []
    for model in (light, scaled_mace()):
        calculator = MaceCalculator(model, dtype="float32", head=HEADS[0])
        calculator.calculate(rocksalt_lif())
        answers.append(calculator.results)
    for quantity in ("forces", "stress"):
        np.testing.assert_array_equal(answers[0][quantity], answers[1][quantity])
