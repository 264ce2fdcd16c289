"""Batches of systems of different sizes, with a real model: parted or whole, each system is what it is alone."""

import numpy as np
import pytest
import torch
from ase import Atoms
from md_runs import NO_LIMITS, stage
from small import rocksalt_lif

from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.dynamics.replica import Replica
from hopline.dynamics.runs import make_engine
from hopline.dynamics.simulation import simulate
from hopline.potentials import chgnet
from hopline.potentials.calculator import BatchedCalculator
from hopline.trajectories import read_trajectory

SIZES = (16, 8, 32, 8, 16)
STEPS = stage("npt", timestep_fs=1.0, duration_ps=0.01, frame_interval_fs=2.0)


class Card(BatchedCalculator):
    """CHGNet on a card whose memory holds so many atoms."""

    def __init__(self, calculator, n_atoms):
        super().__init__()
        self.calculator, self.n_atoms, self.joined = calculator, n_atoms, []

    def join(self, frames, **settings):
        """Return CHGNet's force field, which refuses more atoms than fit."""
        self.joined.append([len(atoms) for atoms in frames])
        field = self.calculator.join(frames, **settings)
        compute, n_atoms = field.compute, self.n_atoms

        def on_card(positions_A, cells_A, *, stress):
            if len(positions_A) > n_atoms:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return compute(positions_A, cells_A, stress=stress)

        field.compute = on_card
        return field


@pytest.fixture(scope="module")
def shipped():
    return chgnet.ChgnetCalculator(chgnet.load_shipped("0.3.0"))


def crystals():
    """LiF of 8, 16 and 32 atoms, moving; the third is the largest."""
    made = []
    for seed, size in enumerate(SIZES):
        atoms = rocksalt_lif(rattle_A=0.03, seed=seed).repeat(
            {8: (1, 1, 1), 16: (2, 1, 1), 32: (2, 2, 1)}[size]
        )
        draw_momenta(atoms, 600.0, seed)
        remove_total_momentum(atoms)
        made.append(atoms)
    return made


def simulated(folder, starts, calculator):
    """Run starts side by side and return how each ended and its trajectory."""
    replicas = [Replica(atoms, STEPS, folder / f"{row}.h5") for row, atoms in enumerate(starts)]

    def made(*batch):
        return make_engine(*batch, calculator=calculator, engine="batched")

    outcomes = simulate(replicas, made, NO_LIMITS, mobile="Li")
    return outcomes, [read_trajectory(replica.trajectory) for replica in replicas]


def test_each_system_of_a_parted_batch_is_what_it_is_alone(tmp_path, shipped):
    """Eighty atoms on a card of forty: parts of three, two and at last one; float32, 10 fs: rounding has not grown."""
    starts = crystals()
    card = Card(shipped, 40)
    _, parted = simulated(tmp_path / "parted", starts, card)
    assert card.joined == [[16, 8, 32, 8, 16], [16, 8, 32], [8, 16], [16, 8], [32, 8], [16]]
    _, whole = simulated(tmp_path / "whole", starts, shipped)
    for row, atoms in enumerate(starts):
        _, [alone] = simulated(tmp_path / f"alone-{row}", [atoms], shipped)
        for one in (parted[row], whole[row]):
            np.testing.assert_allclose(one.positions_A, alone.positions_A, atol=2e-5)
            np.testing.assert_allclose(one.cells_A, alone.cells_A, atol=2e-5)
            energies = [run.observables["potential_energy_eV"] for run in (one, alone)]
            np.testing.assert_allclose(*energies, rtol=0, atol=2e-6 * len(atoms))
        assert np.abs(alone.positions_A[-1] - alone.positions_A[0]).max() > 0.05


def test_a_system_refused_in_a_later_part_is_the_right_one(tmp_path, shipped):
    """The fourth of five, in the second part, is an atom far from its next: CHGNet refuses it, the others go on."""
    starts = crystals()
    lonely = Atoms("LiF", positions=[[0, 0, 0], [15, 15, 15]], cell=[30] * 3, pbc=True)
    lonely.set_momenta(np.zeros((2, 3)))
    starts[3] = lonely
    outcomes, runs = simulated(tmp_path, starts, Card(shipped, 60))
    assert [outcome.status for outcome in outcomes] == ["finished"] * 3 + ["exploded", "finished"]
    assert "refuses its start" in outcomes[3].reason
    assert [run.n_frames for run in runs] == [6, 6, 6, 1, 6]
