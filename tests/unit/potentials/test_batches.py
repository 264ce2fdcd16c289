"""Frames of any size, cell and composition in one call: what each gives alone."""

import numpy as np
import pytest
import torch
from foundations import HEADS, two_heads
from small import rocksalt_lif

from hopline.console import InputError
from hopline.potentials.chgnet import ChgnetCalculator, load_shipped
from hopline.potentials.forcefield import SystemRefused
from hopline.potentials.mace import MaceCalculator

TOLERANCE = {"mace": 1e-10, "chgnet": 2e-5}
"""eV, eV/A and eV/A^3; MACE in float64, CHGNet in float32."""


def mixture():
    """Frames that share neither size, cell nor composition."""
    skewed = rocksalt_lif(seed=1)
    skewed.set_cell(
        skewed.cell.array @ [[1.0, 0.05, 0.0], [0.0, 1.02, 0.0], [0.02, 0.0, 0.97]], scale_atoms=True
    )
    fewer = rocksalt_lif((2, 1, 1), seed=2)
    del fewer[[0]]
    return [rocksalt_lif(seed=3), skewed, fewer, rocksalt_lif((2, 2, 1), seed=4)]


def tensors(frames):
    positions = np.concatenate([atoms.positions for atoms in frames])
    return torch.tensor(positions), torch.tensor(np.stack([atoms.cell.array for atoms in frames]))


@pytest.fixture(scope="module", params=["mace", "chgnet"])
def family(request):
    make = {
        "mace": lambda: MaceCalculator(two_heads("float64"), dtype="float64", head=HEADS[1]),
        "chgnet": lambda: ChgnetCalculator(load_shipped("0.3.0")),
    }
    return request.param, make[request.param]()


def test_a_batch_gives_what_its_frames_give_alone(family):
    name, calculator = family
    frames = mixture()
    together = calculator.predict(frames, stress=True)
    assert len(together) == len(frames)
    for atoms, found in zip(frames, together, strict=True):
        [alone] = calculator.predict([atoms], stress=True)
        assert found.forces_eV_per_A.shape == (len(atoms), 3)
        assert found.energy_eV == pytest.approx(alone.energy_eV, abs=TOLERANCE[name] * len(atoms))
        np.testing.assert_allclose(found.forces_eV_per_A, alone.forces_eV_per_A, rtol=0, atol=TOLERANCE[name])
        np.testing.assert_allclose(
            found.stress_eV_per_A3, alone.stress_eV_per_A3, rtol=0, atol=TOLERANCE[name]
        )


def test_the_order_of_a_batch_moves_nothing(family):
    name, calculator = family
    frames = mixture()
    there, back = (
        calculator.predict(frames, stress=False),
        calculator.predict(frames[::-1], stress=False)[::-1],
    )
    for one, other in zip(there, back, strict=True):
        assert one.stress_eV_per_A3 is None
        np.testing.assert_allclose(one.forces_eV_per_A, other.forces_eV_per_A, rtol=0, atol=TOLERANCE[name])


def test_ase_is_given_a_batch_of_one(family):
    _, calculator = family
    atoms = mixture()[1]
    [found] = calculator.predict([atoms], stress=True)
    calculator.calculate(atoms, ["energy", "forces", "stress"])
    assert calculator.results["energy"] == pytest.approx(found.energy_eV, rel=1e-12)
    six = calculator.results["stress"]
    matrix = [[six[0], six[5], six[4]], [six[5], six[1], six[3]], [six[4], six[3], six[2]]]
    symmetric = (found.stress_eV_per_A3 + found.stress_eV_per_A3.T) / 2
    np.testing.assert_allclose(matrix, symmetric, rtol=1e-6, atol=1e-9)


def test_forces_add_up_to_nothing_and_the_shortest_distance_is_told(family):
    _, calculator = family
    frames = mixture()
    found = calculator.join(frames).compute(*tensors(frames), stress=False)
    assert found.stresses_eV_per_A3 is None
    sizes = [len(atoms) for atoms in frames]
    for forces, shortest_A, atoms in zip(
        found.forces_eV_per_A.split(sizes), found.shortest_A.tolist(), frames, strict=True
    ):
        assert float(forces.sum(dim=0).abs().max()) < 1e-13
        distances_A = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
        assert shortest_A == pytest.approx(distances_A.min(), rel=1e-12)


def test_ase_is_told_the_same_whatever_was_computed_before(family):
    """Between two looks at one frame: steps, another cell, other atoms, a frame far away."""
    name, calculator = family
    atoms = mixture()[0]
    first = calculator.get_property("forces", atoms).copy()
    calculator.get_property("forces", mixture()[2])
    for _ in range(3):
        atoms.positions += 0.1
        calculator.get_property("forces", atoms)
    calculator.get_property("forces", mixture()[1])
    calculator.reset()
    np.testing.assert_array_equal(calculator.get_property("forces", mixture()[0]), first)
    [alone] = calculator.predict(mixture()[:1], stress=False)
    np.testing.assert_allclose(alone.forces_eV_per_A, first, rtol=0, atol=TOLERANCE[name])


def test_a_refusal_names_the_frame_and_its_row(family):
    _, calculator = family
    frames = mixture()
    frames[2].positions[1, 1] = np.nan
    frames[2].info["frame_id"] = "lost"
    with pytest.raises(SystemRefused, match="frame lost: positions or cell are no finite numbers") as refusal:
        calculator.predict(frames, stress=False)
    assert refusal.value.row == 2


def test_a_stranger_anywhere_in_a_batch_is_refused(family):
    _, calculator = family
    frames = mixture()
    frames[2].symbols[0] = "Og"
    with pytest.raises(InputError, match="not trained on Og"):
        calculator.predict(frames, stress=False)
