"""What any VASP run says of its theory and its convergence, wherever it says so."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from hopline.units import KBAR_PER_EV_PER_A3

CUT_INSIDE = "cut off: the file ends inside this ionic step"
CUT_BETWEEN = "cut off: the file ends before VASP came to its end"
NOT_DFT = "no electronic step: its energy and forces are not from DFT"
SAME_ENERGY_EV = 1e-4
"""VASP prints an ionic step's energy twice, to 1e-8; what is further off is another quantity."""
NON_SELF_CONSISTENT_ICHARG = 10
MAX_CHARGE = 1e-3

GGA_NAMES = {
    "PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "91": "PW91", "AM": "AM05", "BF": "BEEF", "CA": "LDA",
}  # fmt: skip
POTCAR_FUNCTIONALS = {"PAW_PBE": "PBE", "PAW_GGA": "PW91", "PAW": "LDA", "US": "LDA"}
SMEARINGS = {
    0: "gaussian",
    -1: "fermi-dirac",
    -2: "fixed occupations",
    -4: "tetrahedron uncorrected",
    -5: "tetrahedron",
}
PRECISIONS = {"a": "accurate", "h": "high", "m": "medium", "l": "low", "s": "single"}


def number(word: str) -> float:
    """Return a number as Fortran prints it; stars, where it did not fit, are no number."""
    try:
        return float(word)
    except ValueError:
        return math.nan


def stress(stress_kbar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return VASP's stress, kbar and positive under compression, in eV/A^3 with ASE's sign, symmetric."""
    if stress_kbar.shape != (3, 3):
        return np.full((3, 3), np.nan)
    return -(stress_kbar + stress_kbar.T) / 2 / KBAR_PER_EV_PER_A3


def is_true(tags: Mapping[str, str], name: str) -> bool:
    """Tell whether a logical tag is set."""
    return tags.get(name, "F").strip(".").upper().startswith("T")


def why_not(scf_energies_eV: Sequence[float | None], energy_eV: float | None, tags: Mapping[str, str]) -> str:
    """Return why the labels of an ionic step may not be believed, empty where they may.

    A step has converged if its last electronic step changed the energy by less than EDIFF. Neither VASP's word (version
    5 gives it after NELM steps too) nor fewer than NELM steps are a proof: a run may be stopped through its STOPCAR. An
    energy that is not the last electronic step's belongs to something else (PSTRESS times volume, a force field),
    unless a dispersion correction was added.
    """
    n_steps = len(scf_energies_eV)
    last = [math.nan if value is None else value for value in scf_energies_eV[-2:]]
    if not n_steps:
        return NOT_DFT
    if number(tags.get("ICHARG", "nan")) >= NON_SELF_CONSISTENT_ICHARG:
        return f"not self-consistent: it ran in a fixed charge density (ICHARG={tags['ICHARG']})"
    if "EDIFF" not in tags:
        return "the file does not say when the electronic steps were to end (EDIFF)"
    settled = n_steps > 1 and abs(last[1] - last[0]) < number(tags.get("EDIFF", "nan"))
    if not settled:
        return f"SCF not converged after {n_steps} steps"
    added_eV = 0.0 if energy_eV is None else energy_eV - last[-1]
    corrected = number(tags.get("IVDW", "0")) != 0
    else_added = number(tags.get("PSTRESS", "0")) != 0 or is_true(tags, "ML_LMLFF")
    if not abs(added_eV) < SAME_ENERGY_EV and (else_added or not corrected):
        return f"the energy is not that of the last electronic step: {added_eV:+.4f} eV were added"
    return ""


def element(title: str) -> str:
    """Return the element of a POTCAR by its title, such as ``PAW_PBE Ti_pv 07Sep2000``.

    Raises
    ------
    ValueError
        If it names none.
    """
    symbol = re.match(r"[A-Z][a-z]?", [*title.split(), "", ""][1])
    if symbol is None or symbol[0] not in atomic_numbers:
        raise ValueError(f"the POTCAR {title!r} names no element")
    return symbol[0]


def pseudopotentials(
    elements: Sequence[str], titles: Sequence[str], tags: Mapping[str, str]
) -> dict[str, str]:
    """Return POTCARs by element, each with its Hubbard U: a cell without the element says nothing of either."""
    if is_true(tags, "LDAU"):
        values = [[*tags.get(name, "").split(), *["0"] * len(titles)] for name in ("LDAUU", "LDAUJ")]
        pairs = zip(*(map(number, words[: len(titles)]) for words in values), strict=True)
        titles = [
            title + (f" U {u:g} J {j:g} eV" if u or j else "")
            for title, (u, j) in zip(titles, pairs, strict=True)
        ]
    found: dict[str, set[str]] = {}
    for symbol, title in zip(elements, titles, strict=True):
        found.setdefault(symbol, set()).add(title)
    return {symbol: " + ".join(sorted(names)) for symbol, names in found.items()}


def spacing_line(spacing: float, *, gamma: bool) -> str:
    """Return k-points as KSPACING makes them."""
    return f"KSPACING {spacing:g}" + ("" if gamma else " Monkhorst-Pack")


def mesh_line(divisions: Sequence[int], kpoints: NDArray[np.float64]) -> str:
    """Return k-points as a mesh, ``divisions``, or as a list where there is none; ``kpoints`` (n, 3) are scaled."""
    if not divisions:
        return f"k list of {len(kpoints)} points"
    return f"k {'x'.join(map(str, divisions))} " + ("Monkhorst-Pack" if kpoints[0].any() else "Gamma")


def level_of_theory(tags: Mapping[str, str], titles: Sequence[str], sampling: str, charge: float) -> str:
    """Return one line that two VASP runs share only if their energies may be compared.

    What changes the energy of a converged run stands in it: functional, cutoff, k-points, smearing, spin, PREC,
    LASPH, dispersion, charge; not ALGO, NBANDS, LREAL or parallelisation. POTCARs and U are known by element. A mesh
    that KSPACING made is named by KSPACING, since one spacing gives cells of different size different meshes; a mesh
    from KPOINTS is named as it is: its density alone would let Gamma-only runs of a cell pass for converged ones.
    """
    ismear = int(number(tags.get("ISMEAR", "1")))
    smearing = SMEARINGS.get(ismear, f"methfessel-paxton {ismear}")
    width = f" {number(tags.get('SIGMA', 'nan')):g} eV" if ismear >= -1 else ""
    precision = PRECISIONS.get(tags.get("PREC", "n").lower()[:1], "")
    dispersion = number(tags.get("IVDW", "0"))
    parts = [
        f"{_functional(tags, titles)} VASP",
        f"{number(tags.get('ENMAX', tags.get('ENCUT', 'nan'))):g} eV",
        sampling,
        smearing + width,
        "spin-polarised" if tags.get("ISPIN") == "2" else "",
        "noncollinear" if is_true(tags, "LNONCOLLINEAR") else "",
        "spin-orbit" if is_true(tags, "LSORBIT") else "",
        f"PREC {precision}" if precision else "",
        "LASPH" if is_true(tags, "LASPH") else "",
        f"IVDW {dispersion:g}" if dispersion else "",
        f"charge {charge:+g}" if abs(charge) > MAX_CHARGE else "",
    ]
    return "; ".join(part for part in parts if part)


def _functional(tags: Mapping[str, str], titles: Sequence[str]) -> str:
    meta, gga = (tags.get(name, "--").strip().upper() for name in ("METAGGA", "GGA"))
    of_potcar = "/".join(sorted({POTCAR_FUNCTIONALS.get(title.split(" ")[0], "?") for title in titles}))
    name = of_potcar if gga in {"", "--"} else GGA_NAMES.get(gga, gga)
    if meta not in {"", "--", "F", "T", "NONE"}:
        name = meta
    if is_true(tags, "LUSE_VDW"):
        name += " vdW-DF"
    if is_true(tags, "LHFCALC"):
        exchange, screening = (number(tags.get(key, "nan")) for key in ("AEXX", "HFSCREEN"))
        name += f" hybrid {exchange:g} exact exchange, screening {screening:g}/A"
    return name
