"""The page: what was read, drawn and judged, put into a template."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from hopline.report import figures, figures_potentials, tables, trust
from hopline.report.inputs import Material
from hopline.report.numbers import SUPERSCRIPTS
from hopline.report.style import colour_of

EXPONENT = re.compile("(?<=10)[" + "".join(map(chr, SUPERSCRIPTS.values())) + "]+")
ORDINARY = {raised: chr(plain).replace("-", "\N{MINUS SIGN}") for plain, raised in SUPERSCRIPTS.items()}


def render(material: Material, template: str | os.PathLike[str]) -> str:
    """Return the report of one system as one HTML page that needs nothing else.

    The template lies in a folder with what it includes; every text that comes from files is escaped, only the
    figures are put in as they are.
    """
    template = Path(template)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template(template.name).render(**context(material))
    # few fonts hold all superscript digits alike: the page raises ordinary ones
    return EXPONENT.sub(lambda found: f"<sup>{found[0].translate(ORDINARY)}</sup>", html)


def context(material: Material) -> dict[str, Any]:
    """Return everything the template names."""
    answers = trust.answer_lines(material)
    stages, dynamics = tables.dynamics_table(material)
    return {
        "material": material,
        "title": f"{material.mobile or 'Mobile species'} in {material.host or material.system}",
        "headline": trust.headline(material, answers),
        "answers": answers,
        "cautions": trust.cautions(material, answers),
        "diffusivities": tables.diffusivity_rows(material),
        "potentials": tables.potential_rows(material),
        "further": tables.further_rows(material),
        "stability": tables.stability_rows(material),
        "committees": tables.committee_rows(material),
        "lines": tables.line_rows(material),
        "elements": tables.element_columns(material),
        "sampling": tables.sampling_rows(material),
        "stages": stages,
        "dynamics": dynamics,
        "timings": tables.timing_rows(material),
        "provenance": tables.provenance_of(material),
        "colours": {name: colour_of(name, material.potentials) for name in material.potentials},
        "figures": _figures(material),
    }


def _figures(material: Material) -> Mapping[str, Any]:
    """Draw every figure for which there is something to draw; the rest are empty."""
    names = material.potentials
    compositions = list(dict.fromkeys(line[1] for line in material.lines))
    curved = [line for line in material.lines if any(point.line == line for point in material.curves)]
    correlated = list(dict.fromkeys(point.composition for point in material.correlations))
    timed = [run for run in material.runs if run.stage.startswith("nve")]
    return {
        "arrhenius": {
            name: _safe(figures.draw_arrhenius(material.diffusivities, material.arrhenius, names, name))
            for name in compositions
        },
        "msd": {
            line: _safe(figures.draw_msd(material.curves, material.diffusivities, names, line))
            for line in curved
        },
        "pairs": {name: _pairs(material, name) for name in correlated},
        "throughput": _safe(figures.draw_throughput(timed, names)) if timed else None,
        "parity": _safe(figures_potentials.draw_parity(material.predictions, names))
        if material.predictions
        else None,
        "learning": _safe(figures_potentials.draw_learning_curves(material.training, names))
        if material.training
        else None,
        "maps": {
            name: _safe(
                figures_potentials.draw_map(
                    table, material.coverage.get(name, {}).get("explained_variance_by_component")
                )
            )
            for name, table in material.maps.items()
        },
    }


def _pairs(material: Material, composition: str) -> dict[str, Any]:
    svg, temperatures_K = figures.draw_pair_distributions(
        material.correlations, material.potentials, composition
    )
    return {"svg": _safe(svg), "temperatures": ", ".join(f"{value:g} K" for value in temperatures_K)}


def _safe(svg: str) -> Any:
    """Mark a figure of our own as HTML; matplotlib has escaped the names in it."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704
