"""MACE's energies in our calculator: the model's own, and smooth in float32 whatever the atoms' references are."""

import copy

import numpy as np
import pytest
import torch
from foundations import HEADS, two_heads
from small import rocksalt_lif

from hopline.potentials.mace import MaceCalculator

STEPS_EV_PER_ATOM = 1e-5
REFERENCES_EV = [[-1e4, -2e4, -3e4, -4e4], [-1.1e4, -2.1e4, -3.1e4, -4.1e4]]
"""As of a code that counts all electrons. In float32 numbers of 3e6 eV, 216 atoms' energy, are 0.25 eV apart."""


def plain_mace():
    """Return a model of the older kind, whose total energy is the sum of contributions, and its two heads."""
    import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
    from e3nn import o3
    from mace import modules

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


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("make", [plain_mace, scaled_mace])
def test_the_energy_is_the_models_own(make, head):
    calculator = MaceCalculator(make(), dtype="float64", head=head)
    atoms = rocksalt_lif()
    own = calculator.model(calculator._batch([atoms]), training=False, compute_force=False)["energy"]
    assert calculator.get_property("energy", atoms) == pytest.approx(float(own), rel=1e-14)


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
