"""One replica: where it comes from, what is measured on it, and what of it enters the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hopline.console import InputError
from hopline.diffusion.hops import count_hops, default_hop_length
from hopline.diffusion.msd import mobile_positions, windowed_msd
from hopline.dynamics.checks import Drift
from hopline.trajectories import Trajectory
from hopline.units import CM2_PER_S_PER_A2_PER_PS

INTERVAL_TOLERANCE = 1e-3
MIN_FRAMES = 20
STATUSES = ("finished", "exploded", "interrupted")


@dataclass(frozen=True)
class ReplicaSource:
    """A replica to use: its name, how to load it, and its sidecar's status and reason (None: no sidecar)."""

    name: str
    load: Callable[[], Trajectory]
    status: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ReplicaResult:
    """One replica's share of the result; quantities of a replica that was not read are None."""

    trajectory: str
    status: str | None
    used: bool
    diffusivity_cm2_per_s: float | None = None
    hops: int | None = None
    energy_drift_meV_per_atom_per_ps: float | None = None
    mean_temperature_K: float | None = None
    length_ps: float | None = None


@dataclass(frozen=True, eq=False)
class Observation:
    """What is measured on one replica; energy drift in meV/atom/ps, MSD (n_frames,) at every lag."""

    name: str
    status: str | None
    msd_A2: NDArray[np.float64]
    frame_interval_ps: float
    n_mobile: int
    hops: int
    hop_length_A: float
    energy_drift: float | None
    temperature_K: float | None
    length_ps: float


def status_note(source: ReplicaSource) -> str | None:
    """Return the sentence that a status deserves, None where it finished; unknown ones are refused."""
    if source.status is not None and source.status not in STATUSES:
        raise InputError(
            f"the sidecar of {source.name} has status {source.status}; known: {', '.join(STATUSES)}"
        )
    because = f": {source.reason.rstrip('.')}" if source.reason else ""
    if source.status == "exploded":
        return f"{source.name} is left out, it exploded{because}."
    if source.status == "interrupted":
        return f"{source.name} was interrupted{because}; what it holds is used."
    return None


def observe(source: ReplicaSource, *, species: str, hop_length_A: float | None) -> Observation:
    """Load one replica and measure it; see ``estimate_diffusivity`` for the arguments and errors."""
    trajectory = source.load()
    interval_ps = trajectory.frame_interval_ps
    if trajectory.n_frames < MIN_FRAMES:
        raise InputError(f"{source.name} has {trajectory.n_frames} frames; at least {MIN_FRAMES} are needed")
    positions_A = mobile_positions(trajectory, species)
    hop_length_A = hop_length_A or default_hop_length(trajectory, species)
    hops = count_hops(positions_A, frame_interval_ps=interval_ps, hop_length_A=hop_length_A)
    temperatures_K = trajectory.observables.get("temperature_K")
    return Observation(
        name=source.name,
        status=source.status,
        msd_A2=windowed_msd(positions_A),
        frame_interval_ps=interval_ps,
        n_mobile=positions_A.shape[1],
        hops=int(hops.sum()),
        hop_length_A=hop_length_A,
        energy_drift=energy_drift(trajectory),
        temperature_K=None if temperatures_K is None else float(np.nanmean(temperatures_K)),
        length_ps=trajectory.length_ps,
    )


def energy_drift(trajectory: Trajectory) -> float | None:
    """Return the least-squares slope of the total energy per atom, or None where it is not recorded."""
    potential, kinetic = (
        trajectory.observables.get(key) for key in ("potential_energy_eV", "kinetic_energy_eV")
    )
    if potential is None or kinetic is None:
        return None
    drift = Drift(trajectory.n_atoms)
    known = np.isfinite(potential + kinetic)
    frames = (trajectory.time_ps[known], (potential + kinetic)[known], kinetic[known])
    for time_ps, total_eV, kinetic_eV in zip(*(values.tolist() for values in frames), strict=True):
        drift.add(time_ps, total_eV, kinetic_eV)
    slope = drift.meV_per_atom_per_ps
    return slope if np.isfinite(slope) else None


def refuse_mixtures(observed: Sequence[Observation]) -> None:
    """Refuse replicas that differ in frame interval or in the number of mobile ions."""
    for one in observed[1:]:
        first = observed[0]
        if (
            abs(one.frame_interval_ps - first.frame_interval_ps)
            > INTERVAL_TOLERANCE * first.frame_interval_ps
        ):
            raise InputError(
                f"replicas need one frame interval: {first.name} has {first.frame_interval_ps:.6g} ps, "
                f"{one.name} {one.frame_interval_ps:.6g} ps"
            )
        if one.n_mobile != first.n_mobile:
            raise InputError(
                f"replicas need the same atoms: {first.name} has {first.n_mobile} mobile ions, "
                f"{one.name} {one.n_mobile}"
            )


def replica_results(
    sources: Sequence[ReplicaSource], observed: Sequence[Observation], used: Sequence[Observation],
    values: NDArray[np.float64],
) -> list[ReplicaResult]:  # fmt: skip
    """Return a result for each source; ``values`` are the used replicas' D in A^2/ps."""
    diffusivities = {
        one.name: float(value) * CM2_PER_S_PER_A2_PER_PS for one, value in zip(used, values, strict=True)
    }
    seen = {one.name: one for one in observed}
    results = []
    for source in sources:
        one = seen.get(source.name)
        if one is None:
            results.append(ReplicaResult(source.name, source.status, used=False))
            continue
        results.append(
            ReplicaResult(
                trajectory=one.name,
                status=one.status,
                used=one.name in diffusivities,
                diffusivity_cm2_per_s=diffusivities.get(one.name),
                hops=one.hops,
                energy_drift_meV_per_atom_per_ps=one.energy_drift,
                mean_temperature_K=one.temperature_K,
                length_ps=one.length_ps,
            )
        )
    return results
