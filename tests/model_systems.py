"""Batches whose forces or whose statistics are known in closed form, a way to run them, and tests of distributions."""

import ase.build
import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from scipy.stats import chi2

from hopline.dynamics.protocol import draw_momenta, remove_total_momentum
from hopline.dynamics.state import Noise, state_of_atoms
from hopline.potentials.forcefield import BatchForces, ForceField

CPU = torch.device("cpu")
ARGON = {"epsilon": 0.0104, "sigma": 3.4, "rc": 4.9, "ro": 4.2, "smooth": True}
"""eV and A, as ASE's LennardJones takes them; the cutoff fits twice into a cell of 32 atoms."""
ARGON_A = 5.27
FALSE_ALARM = 1e-3
"""Share of right programs that a statistical test of this suite calls wrong, were its seed not fixed."""


class LennardJonesBatch(ForceField):
    """Smoothly cut Lennard-Jones (the formula of ASE's ``smooth``) in orthorhombic cells, nearest images.

    All systems have the same number of atoms. Each pair is met once: atom i and the one k places on. Numbers are added
    one after another, so that a system's forces are the same bits alone and in a batch.
    """

    device = CPU

    def __init__(self, n_per_system, epsilon, sigma, rc, ro, *, smooth=True):
        assert smooth
        self.n, self.epsilon, self.sigma, self.rc, self.ro = n_per_system, epsilon, sigma, rc**2, ro**2
        places, on = torch.arange(n_per_system)[:, None], torch.arange(1, n_per_system // 2 + 1)
        self.partners = (places + on) % n_per_system
        self.met_by = (places - on) % n_per_system, on - 1
        # halfway round a pair would be met from both ends
        self.twice = (2 * on == n_per_system) & (places >= n_per_system // 2)

    def compute(self, positions_A, cells_A, *, stress):
        """Compute energies, forces and stresses of all pairs."""
        lengths = cells_A.diagonal(dim1=1, dim2=2).T.contiguous()[:, :, None, None]
        assert float(lengths.min()) ** 2 > 4.0 * self.rc, "the cell is too small for nearest images"
        at = positions_A.view(-1, self.n, 3).permute(2, 0, 1).contiguous()
        between = at[:, :, self.partners] - at[..., None]
        between = between - torch.round(between / lengths) * lengths
        squares = between * between
        r2 = squares[0] + squares[1] + squares[2]
        ratio = self.sigma**2 / r2
        c6 = ratio * ratio * ratio
        energy = 4.0 * self.epsilon * (c6 * c6 - c6)
        push = -24.0 * self.epsilon * (2.0 * c6 * c6 - c6) / r2
        scale = (self.rc - self.ro) ** 3
        left = (self.rc - r2).clamp(min=0.0)
        switch = torch.where(r2 < self.ro, 1.0, left * left * (self.rc + 2.0 * r2 - 3.0 * self.ro) / scale)
        slope = torch.where(r2 < self.ro, 0.0, 6.0 * left * (self.ro - r2) / scale)
        none = (r2 >= self.rc) | self.twice
        push = (switch * push + 2.0 * slope * energy).masked_fill(none, 0.0)
        energy = (switch * energy).masked_fill(none, 0.0)
        pairs = push * between
        met = pairs[:, :, self.met_by[0], self.met_by[1]]
        forces = sum((pairs - met).unbind(3)).permute(1, 2, 0).reshape(-1, 3)
        stresses = None
        if stress:
            outer = sum((between[:, None] * pairs[None]).unbind(4))
            stresses = sum(outer.unbind(3)).permute(2, 0, 1) / torch.linalg.det(cells_A)[:, None, None]
        energies = sum(sum(energy.unbind(2)).unbind(1))
        return BatchForces(energies, forces, stresses, r2.flatten(1).amin(1).sqrt())


class EinsteinCrystal(ForceField):
    """Atoms on springs whose sites scale with the cell, and a parabola in the volume.

    U = sum_i k_i |r_i - r_i0|^2 / 2 + K (V - V0)^2 / (2 V0); with ``free`` the springs hang on a frame without mass
    that follows them, so forces sum to zero and one atom's three degrees of freedom less store energy. Stiffness
    and K zero: an ideal gas. ``stiffness`` (n_per_system,) in eV/A^2, ``fractional_sites`` (n_per_system, 3).
    """

    device = CPU

    def __init__(self, fractional_sites, stiffness, *, free=False, volume_A3=1.0, modulus_eV_per_A3=0.0):
        self.sites = torch.as_tensor(np.asarray(fractional_sites), dtype=torch.float64)
        self.stiffness = torch.as_tensor(np.asarray(stiffness), dtype=torch.float64)[:, None]
        self.free, self.volume_A3, self.modulus = free, volume_A3, modulus_eV_per_A3

    def compute(self, positions_A, cells_A, *, stress):
        """Compute energies, forces and stresses."""
        moved = positions_A.view(len(cells_A), -1, 3) - self.sites @ cells_A
        if self.free:
            moved = moved - ((self.stiffness * moved).sum(1) / self.stiffness.sum())[:, None]
        forces = -self.stiffness * moved
        volumes = torch.linalg.det(cells_A)
        excess = volumes - self.volume_A3
        energies = -0.5 * (forces * moved).sum((1, 2)) + 0.5 * self.modulus * excess**2 / self.volume_A3
        stresses = None
        if stress:
            stresses = -(moved.transpose(1, 2) @ forces) / volumes[:, None, None]
            stresses = stresses + (self.modulus * excess / self.volume_A3)[:, None, None] * torch.eye(3)
        return BatchForces(energies, forces.reshape(-1, 3), stresses, torch.full_like(energies, torch.inf))


class OneOfBatch(Calculator):
    """A batched model as ASE calculator of one system, so that ASE's integrators run on the same forces."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute by the batched model."""
        super().calculate(atoms, properties, system_changes)
        positions, cell = torch.from_numpy(self.atoms.positions), torch.from_numpy(self.atoms.cell.array)
        found = self.model.compute(positions, cell[None], stress=True)
        self.results = {
            "energy": found.energies_eV.item(),
            "forces": found.forces_eV_per_A.numpy(),
            "stress": found.stresses_eV_per_A3[0].numpy()[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)],
        }


def argon(temperature_K=40.0, seed=0, lattice_A=ARGON_A):
    """Return 32 moving argon atoms, fcc, total momentum zero."""
    atoms = ase.build.bulk("Ar", "fcc", a=lattice_A, cubic=True).repeat(2)
    atoms.rattle(0.05, seed=seed)
    draw_momenta(atoms, temperature_K, seed)
    remove_total_momentum(atoms)
    return atoms


def argon_model(kind=LennardJonesBatch):
    """Return the Lennard-Jones batch for ``argon``, or one of a class derived from it."""
    return kind(32, **ARGON)


def crystal(temperature_K, stiffness, length_A=6.0, *, free, seed=0):
    """Return lithium and fluorine on springs, drawn from the exact canonical law, with the springs' fractional sites.

    With ``free`` the centre of mass is at rest and the frame's place is that of the sites.
    """
    rng = np.random.default_rng(seed)
    n_atoms = len(stiffness)
    sites = np.random.default_rng(1).random((n_atoms, 3))
    spread = np.sqrt(ase.units.kB * temperature_K / np.asarray(stiffness))[:, None]
    symbols = ["Li" if place % 2 else "F" for place in range(n_atoms)]
    atoms = Atoms(symbols, positions=sites * length_A, cell=[length_A] * 3, pbc=True)
    atoms.positions += spread * rng.standard_normal((n_atoms, 3))
    draw_momenta(atoms, temperature_K, seed + 1_000_000)
    if free:
        remove_total_momentum(atoms)
    return atoms, sites


def begin(integrator, systems, model, seed=0):
    """Return the state at the start, the forces and the noise of a run of these atoms."""

    def forces(positions_A, cells_A):
        return model.compute(positions_A, cells_A, stress=integrator.needs_stress)

    state = integrator.begin(state_of_atoms(systems, forces, CPU))
    seeds = [1000 * seed + row for row in range(len(systems))]
    return state, forces, Noise.of_seeds(seeds, [len(atoms) for atoms in systems], CPU)


def run(integrator, started, n_steps, temperatures_K, *, every=1, observe=None):
    """Run a batch and return the last state and what ``observe`` saw each ``every`` steps, (n_frames, ...).

    ``temperatures_K`` is one number, one a system, or a function of the step.
    """
    state, forces, noise = started
    ask = temperatures_K if callable(temperatures_K) else lambda _: temperatures_K
    seen = []
    for step in range(n_steps):
        targets = torch.zeros(state.n_systems, dtype=torch.float64) + torch.as_tensor(ask(step))
        state = integrator.step(state, forces, temperatures_K=targets, noise=noise)
        if observe and (step + 1) % every == 0:
            seen.append(observe(state).numpy().copy())
    return state, np.array(seen)


def correlation_time(series):
    """Return the integrated autocorrelation time, in frames, of (n_frames, n_systems) about the common mean.

    Sizes of correlations are added, so that swings do not cancel, up to a window of five times (Sokal).
    """
    off = series - series.mean()
    variance = (off**2).mean()
    total = 1.0
    for lag in range(1, len(off) // 2):
        total += 2.0 * abs((off[lag:] * off[:-lag]).mean()) / variance
        if lag >= 5.0 * total:
            return total
    raise AssertionError("the run is too short for its own memory")


def decorrelated(series):
    """Return values of (n_frames, n_systems) three correlation times apart: nearly independent."""
    return series[:: int(np.ceil(3.0 * correlation_time(series)))].ravel()


def chi_square_chance(samples, law, bins=20):
    """Return the chance that independent samples of ``law`` (scipy.stats) fill bins of equal weight less evenly."""
    counts, _ = np.histogram(law.cdf(samples), bins=bins, range=(0.0, 1.0))
    expected = len(samples) / bins
    assert expected >= 10
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), bins - 1)


def mean_and_error(series):
    """Return mean and standard error of (n_frames, n_systems), one mean a system: systems are independent."""
    means = series.mean(axis=0)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))
