"""The answer in one sentence, and in plain words how far to trust it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hopline.diffusion.verdict import INVALID, NO_DIFFUSION_SEEN, RELIABLE, WEAK
from hopline.report.inputs import EXPLORATION, Material
from hopline.report.numbers import (
    counted,
    fixed,
    is_number,
    percent,
    plain,
    power,
    power_with_error,
    with_error,
)
from hopline.report.places import Point

NO_LINE = "no-line"
SMALL_CELL_ATOMS = 100
SHORT_REPLICA_PS = 100.0
FEW_TEST_FRAMES = 50
SOFT_SLOPE = 0.95
STIFF_SLOPE = 1.05
MANY_NOVEL = 0.05
LOW_BARRIER_EV = 3.0
MIN_POINTS = 3
WIDE_SHARE = 0.5
"""An activation energy whose 95 % interval reaches further than this share of it is weak."""
POOR_FIT_P = 0.05
QUOTABLE = (RELIABLE, WEAK, NO_DIFFUSION_SEEN)
VERDICT_ORDER = (*QUOTABLE, INVALID)


@dataclass(frozen=True)
class LineAnswer:
    """What one potential says of one composition: the sentence's parts, and whether its E_a may be quoted."""

    potential: str
    composition: str
    verdict: str
    reasons: list[str]
    activation_energy: str | None
    activation_energy_interval: str | None
    prefactor: str | None
    prefactor_interval: str | None
    best: Point | None
    best_verdict: str | None
    best_diffusivity: str | None


@dataclass(frozen=True)
class Caution:
    """One thing to know before using the numbers: a short title and sentences."""

    title: str
    text: str


def judge_line(line: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return whether an activation energy may be quoted (``reliable | weak | no-line``) and the reasons."""
    told = [str(reason) for reason in line.get("reasons", [])]
    energy, interval = line.get("activation_energy_eV"), line.get("activation_energy_interval_95_eV")
    if not is_number(energy):
        return NO_LINE, told or ["No Arrhenius line was fitted."]
    weak = []
    used = line.get("points_used", [])
    if len(used) < MIN_POINTS:
        weak.append(f"Only {len(used)} temperatures carry the line; {MIN_POINTS} are wanted.")
    if any(point.get("verdict") != RELIABLE for point in used):
        weak.append("At least one of its diffusivities is itself weak.")
    if not interval:
        weak.append("The error of the line is unknown.")
    elif max(energy - interval[0], interval[1] - energy) > WIDE_SHARE * abs(energy):
        weak.append(f"Its 95 % interval ({fixed(interval[0], 2)} to {fixed(interval[1], 2)} eV) is wide.")
    if energy <= 0:
        weak.append("It is not positive, as the energy of a thermally activated process must be.")
    fit = line.get("goodness_of_fit")
    if is_number(fit) and fit < POOR_FIT_P:
        weak.append(f"The points do not lie on one line within their errors (p = {plain(fit, 2)}).")
    return (WEAK if weak else RELIABLE), [*weak, *(reason for reason in told if reason not in weak)]


def answer_lines(material: Material) -> list[LineAnswer]:
    """Return what each potential says of each composition; the potential with the least force error first.

    The order is fixed by the held-out force error alone, so that no answer is preferred for its value.
    """
    answers = [_answer(material, line) for line in material.lines]
    compositions = list(dict.fromkeys(line[1] for line in material.lines))
    return sorted(
        answers, key=lambda one: (compositions.index(one.composition), force_error(material, one.potential))
    )


def force_error(material: Material, potential: str) -> float:
    """Return the held-out force RMSE in meV/A, infinite where none was measured."""
    value = material.evaluations.get(potential, {}).get("force_rmse_meV_per_A")
    return float(value) if is_number(value) else float("inf")


def _answer(material: Material, line: tuple[str, str]) -> LineAnswer:
    fitted = material.arrhenius.get(line)
    verdict, reasons = judge_line(fitted) if fitted else (NO_LINE, ["No Arrhenius fit was made."])
    fitted = fitted or {}
    points = {point: found for point, found in material.diffusivities.items() if point.line == line}
    best = _best_point(points)
    found = points.get(best, {}) if best else {}
    return LineAnswer(
        potential=line[0],
        composition=line[1],
        verdict=verdict,
        reasons=reasons,
        activation_energy=None
        if verdict == NO_LINE
        else with_error(fitted["activation_energy_eV"], fitted.get("activation_energy_standard_error_eV")),
        activation_energy_interval=_interval(fitted.get("activation_energy_interval_95_eV")),
        prefactor=power(fitted["prefactor_cm2_per_s"])
        if is_number(fitted.get("prefactor_cm2_per_s"))
        else None,
        prefactor_interval=_power_interval(fitted.get("prefactor_interval_95_cm2_per_s")),
        best=best,
        best_verdict=found.get("verdict"),
        best_diffusivity=diffusivity_text(found) if found.get("verdict") in QUOTABLE else None,
    )


def _best_point(points: Mapping[Point, Mapping[str, Any]]) -> Point | None:
    """Return the best judged point, of those the hottest."""
    known = [point for point, found in points.items() if found.get("verdict") in VERDICT_ORDER]
    return min(
        known,
        key=lambda point: (VERDICT_ORDER.index(points[point]["verdict"]), -point.temperature_K),
        default=None,
    )


def diffusivity_text(found: Mapping[str, Any]) -> str:
    """Return a diffusivity in cm^2/s with its standard error, an upper bound as such, a dash where there is none."""
    bound = found.get("upper_bound_cm2_per_s")
    if found.get("verdict") == NO_DIFFUSION_SEEN and is_number(bound):
        return f"< {power(bound)}"
    return power_with_error(found.get("diffusivity_cm2_per_s"), found.get("standard_error_cm2_per_s"))


def _interval(interval: Sequence[Any] | None) -> str | None:
    return f"{fixed(interval[0], 2)} to {fixed(interval[1], 2)}" if interval else None


def _power_interval(interval: Sequence[Any] | None) -> str | None:
    return f"{power(interval[0])} to {power(interval[1])}" if interval else None


def headline(material: Material, answers: Sequence[LineAnswer]) -> str:
    """Return the answer in one sentence, or in plain words why there is none."""
    who = f"{material.mobile or 'The mobile species'} in {material.host or material.system}"
    if not answers:
        return f"{who}: no diffusivity has been estimated yet, so there is no answer."
    first = answers[0]
    where = f"({first.potential}, {first.composition})"
    point = _point_text(first)
    if first.activation_energy:
        energy = f"activation energy {first.activation_energy} eV, {first.verdict}"
        return f"{who} {where}: {energy}; {point}." if point else f"{who} {where}: {energy}."
    why = f"no activation energy can be given: {first.reasons[-1][:1].lower()}{first.reasons[-1][1:].rstrip('.')}"
    return f"{who} {where}: {point}; {why}." if point else f"{who} {where}: {why}."


def _point_text(answer: LineAnswer) -> str | None:
    if not answer.best:
        return None
    at = f"{answer.best.temperature_K:g} K"
    if answer.best_verdict == NO_DIFFUSION_SEEN:
        return f"no diffusion was seen at {at}, D {answer.best_diffusivity} cm²/s (95 %)"
    if answer.best_verdict == INVALID:
        return "every diffusivity is invalid"
    return f"D({at}) = {answer.best_diffusivity} cm²/s, {answer.best_verdict}"


def cautions(material: Material, answers: Sequence[LineAnswer]) -> list[Caution]:
    """Return what a reader must know before using the numbers, the gravest first."""
    found = [
        _small_cells(material),
        _short_replicas(material),
        _unlike_lines(material),
        *[_softness(name, evaluation) for name, evaluation in material.evaluations.items()],
        *[_hole(name, stability) for name, stability in material.stability.items()],
        *[_unlike_members(name, committee) for name, committee in material.committees.items()],
        *[_few_frames(evaluation) for evaluation in _one_per_set(material.evaluations)],
        *[_novelty(name, coverage) for name, coverage in material.coverage.items()],
        _exploded(material),
        _unevaluated(material, answers),
    ]
    return [caution for caution in found if caution]


def _small_cells(material: Material) -> Caution | None:
    shown = {point.composition for point in material.diffusivities}
    small = {
        name: cell
        for name, cell in material.cells.items()
        if cell.n_atoms < SMALL_CELL_ATOMS and name in shown
    }
    if not small:
        return None
    told = ", ".join(
        f"{name} has {cell.n_atoms} atoms, {fixed(cell.width_A, 1)} Å across" for name, cell in small.items()
    )
    return Caution(
        "Small cell: a demonstration, not a production result",
        f"{told}. Below about {SMALL_CELL_ATOMS} atoms a moving ion meets its own periodic images, the lattice cannot "
        "relax around it, and one added ion is already a high concentration. Repeat with a larger supercell before "
        "comparing with an experiment.",
    )


def _short_replicas(material: Material) -> Caution | None:
    lengths = [
        replica["length_ps"]
        for found in material.diffusivities.values()
        for replica in found.get("replicas", [])
        if is_number(replica.get("length_ps"))
    ]
    short = [length for length in lengths if length < SHORT_REPLICA_PS]
    if not short:
        return None
    span = plain(min(short)) if min(short) == max(short) else f"{plain(min(short))} to {plain(max(short))}"
    which = "All" if len(short) == len(lengths) else f"{len(short)} of {len(lengths)}"
    return Caution(
        "Short replicas: a demonstration, not a production result",
        f"{which} replicas are {span} ps long. In less than {SHORT_REPLICA_PS:g} ps only fast ions "
        "hop often enough to count, rare paths are not visited, and the error bars rest on few events.",
    )


def _unlike_lines(material: Material) -> Caution | None:
    intervals = {
        line: content["activation_energy_interval_95_eV"]
        for line, content in material.arrhenius.items()
        if content.get("activation_energy_interval_95_eV")
    }
    apart = [
        f"{one[0]} and {other[0]} ({one[1]})"
        for row, one in enumerate(intervals)
        for other in list(intervals)[row + 1 :]
        if one[1] == other[1]
        and (intervals[one][1] < intervals[other][0] or intervals[other][1] < intervals[one][0])
    ]
    if not apart:
        return None
    return Caution(
        "The potentials disagree",
        f"The 95 % intervals of the activation energy do not overlap for {', '.join(apart)}. The intervals cover "
        "statistics only, so the difference is the potentials' own.",
    )


def _softness(name: str, evaluation: Mapping[str, Any]) -> Caution | None:
    slope = evaluation.get("force_slope")
    if not is_number(slope) or SOFT_SLOPE <= slope <= STIFF_SLOPE:
        return None
    if slope < SOFT_SLOPE:
        text = (
            f"Its forces are {fixed(slope, 2)} of DFT's on average: barriers come out low and diffusion fast."
        )
        return Caution(f"{name} is too soft", text)
    text = f"Its forces are {fixed(slope, 2)} of DFT's on average: barriers come out high and diffusion slow."
    return Caution(f"{name} is too stiff", text)


def _hole(name: str, stability: Mapping[str, Any]) -> Caution | None:
    low = [wall for wall in stability.get("walls", []) if wall["barrier_eV"] < LOW_BARRIER_EV]
    if not low:
        return None
    told = ", ".join(
        f"{wall['pair']} in {wall['surroundings']} behind {fixed(wall['barrier_eV'], 2)} eV" for wall in low
    )
    return Caution(
        f"{name} has holes",
        f"Pushed together, two atoms fall into each other: {told}. A long or hot run may get there. Label frames with "
        "close pairs, or fine-tune a universal potential.",
    )


def _unlike_members(name: str, committee: Mapping[str, Any]) -> Caution | None:
    if not committee.get("differ_in"):
        return None
    return Caution(
        f"The members of committee {name} differ in more than their seed",
        f"They differ in {', '.join(committee['differ_in'])}: their deviation mixes what these change with the "
        "spread of one training, and says less of either.",
    )


def _one_per_set(evaluations: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep one evaluation for each test set: a small set is one caution, not one for every potential."""
    return list(
        {str((one.get("n_frames"), one.get("test_sources"))): one for one in evaluations.values()}.values()
    )


def _few_frames(evaluation: Mapping[str, Any]) -> Caution | None:
    size = evaluation.get("n_frames")
    if not is_number(size) or size >= FEW_TEST_FRAMES:
        return None
    return Caution(
        "Small test set",
        f"The errors of the potentials come from {counted(size, 'held-out frame')} of "
        f"{counted(len(evaluation.get('test_sources', [])), 'source')}: enough to see a broken "
        "potential, too few for the third digit.",
    )


def _novelty(name: str, coverage: Mapping[str, Any]) -> Caution | None:
    share = coverage.get("novel_fraction")
    if not is_number(share) or share <= MANY_NOVEL:
        return None
    return Caution(
        f"Dataset {name} does not reach all that was explored",
        f"{percent(share)} of the explored frames lie farther from the selection than its frames lie from each other; "
        "there the potential extrapolates.",
    )


def _exploded(material: Material) -> Caution | None:
    bad = [
        run for run in material.runs if run.stage != EXPLORATION and run.sidecar.get("status") != "finished"
    ]
    if not bad:
        return None
    told = "; ".join(
        f"{run.point.potential}, {run.point.composition}, {run.point.temperature_K:g} K, {run.stage}: "
        f"{run.sidecar.get('status')} {run.sidecar.get('reason', '')}".strip()
        for run in bad
    )
    return Caution("Runs that did not finish", f"{told}.")


def _unevaluated(material: Material, answers: Sequence[LineAnswer]) -> Caution | None:
    names = dict.fromkeys(one.potential for one in answers if one.potential not in material.evaluations)
    if not names:
        return None
    return Caution(
        "Not compared with DFT",
        f"{', '.join(names)}: no held-out DFT labels of this system, so nothing here says how well the forces hold.",
    )
