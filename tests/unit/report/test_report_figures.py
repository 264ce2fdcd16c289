"""Every figure is one SVG that says its axes and units, keeps a potential's colour, and asks nothing of the network."""

import re
import xml.etree.ElementTree as ET

import pytest
import report_results

from hopline.report import figures, figures_potentials, style
from hopline.report.inputs import read_material
from hopline.report.numbers import with_error
from hopline.report.places import Point

CHGNET, TUNED = style.COLOURS[:2]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return read_material("lif", **report_results.write_results(tmp_path_factory.mktemp("figures")))


def check(svg, *texts):
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own drawing
    assert set(re.findall(r"https?://[^\"' )>]+", svg)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    # matplotlib draws text as outlines and leaves what it says in a comment
    said = " ".join(re.findall(r"<!-- (.*?) -->", svg, flags=re.DOTALL))
    for text in texts:
        assert text in said


def test_arrhenius_plot_has_both_axes_and_every_energy(material):
    svg = figures.draw_arrhenius(material.diffusivities, material.arrhenius, material.potentials, "Li1")
    energies = [
        with_error(found["activation_energy_eV"], found["activation_energy_standard_error_eV"])
        for found in material.arrhenius.values()
    ]
    check(svg, "1000 / T (1/K)", "T (K)", "D (cm²/s)", "chgnet-ft", "upper bound", "700", "850", *energies)
    assert CHGNET.lower() in svg
    assert TUNED.lower() in svg


def test_points_are_drawn_without_a_line(material):
    one = {Point("chgnet", "Li1", 850.0): material.diffusivities[Point("chgnet", "Li1", 850.0)]}
    svg = figures.draw_arrhenius(one, {}, material.potentials, "Li1")
    check(svg, "no line fitted", "850")
    assert svg.count(CHGNET.lower()) > figures.draw_arrhenius({}, {}, material.potentials, "Li1").count(
        CHGNET.lower()
    )


def test_a_plot_of_bounds_and_invalid_points_only(material):
    bound = material.diffusivities[Point("chgnet-ft", "Li1", 700.0)]
    invalid = {"verdict": "invalid", "diffusivity_cm2_per_s": None, "interval_95_cm2_per_s": None}
    found = {Point("chgnet-ft", "Li1", 700.0): bound, Point("chgnet-ft", "Li1", 850.0): invalid}
    check(figures.draw_arrhenius(found, {}, ["chgnet-ft"], "Li1"), "700", "850")
    nothing = {Point("chgnet-ft", "Li1", 850.0): invalid}
    check(figures.draw_arrhenius(nothing, {}, ["chgnet-ft"], "Li1"), "no diffusivity or bound to draw")


def test_interval_that_reaches_zero_is_drawn(material):
    found = dict(material.diffusivities[Point("chgnet", "Li1", 850.0)])
    found["interval_95_cm2_per_s"] = [0.0, 2 * found["diffusivity_cm2_per_s"]]
    check(figures.draw_arrhenius({Point("chgnet", "Li1", 850.0): found}, {}, ["chgnet"], "Li1"), "D (cm²/s)")


def test_msd_has_a_panel_for_each_temperature(material):
    svg = figures.draw_msd(material.curves, material.diffusivities, material.potentials, ("chgnet", "Li1"))
    check(svg, "lag (ps)", "MSD (Å²)", "700 K", "850 K", "1000 K", "reliable")


def test_msd_of_a_point_without_usable_replicas(material):
    empty = material.curves[Point("chgnet", "Li1", 850.0)].iloc[:0]
    svg = figures.draw_msd({Point("chgnet", "Li1", 850.0): empty}, {}, ["chgnet"], ("chgnet", "Li1"))
    check(svg, "no usable replica")


def test_pair_distributions_show_three_temperatures_of_many(material):
    table = material.correlations[Point("chgnet", "Li1", 850.0)]
    many = {Point("chgnet", "Li1", float(value)): table for value in (500, 600, 700, 800, 900)}
    svg, shown = figures.draw_pair_distributions(many, ["chgnet"], "Li1")
    assert shown == [500.0, 700.0, 900.0]
    check(svg, "g(r)", "r (Å)", f"F{figures.DASH}Li, 700 K", f"Li{figures.DASH}Li, 900 K")


def test_throughput_is_the_median_of_replicas(material):
    runs = [run for run in material.runs if run.point == Point("chgnet", "Li1", 850.0)]
    rates = sorted(run.sidecar["throughput_ns_per_day"] for run in runs if run.stage.startswith("nve"))
    check(figures.draw_throughput(runs, material.potentials), "ns/day", f"{rates[1]:.3g} ns/day")


def test_parity_rasterises_dense_scatters(material):
    svg = figures_potentials.draw_parity(material.predictions, material.potentials)
    check(svg, "DFT energy (meV/atom)", "DFT force (eV/Å)", "DFT stress (GPa)", "chgnet-ft: force")
    forces = (material.predictions["chgnet"]["kind"] == "force").sum()
    assert forces > figures_potentials.DENSE
    assert svg.count("<image") == 2
    assert svg.count("<use") < forces


def test_parity_without_stress_has_no_stress_panel(material):
    table = material.predictions["chgnet"]
    svg = figures_potentials.draw_parity({"chgnet": table[table["kind"] != "stress"]}, ["chgnet"])
    check(svg, "DFT force (eV/Å)")
    assert "stress (GPa)" not in svg


def test_learning_curves(material):
    svg = figures_potentials.draw_learning_curves(material.training, material.potentials)
    check(svg, "epoch", "validation force RMSE (meV/Å)", "validation energy RMSE (meV/atom)", "training loss")
    assert TUNED.lower() in svg
    dashed = svg.count("stroke-dasharray")
    table = material.training["chgnet-ft"]
    without = table.assign(replay_force_rmse_meV_per_A=float("nan"))
    svg = figures_potentials.draw_learning_curves({"chgnet-ft": without}, material.potentials)
    assert svg.count("stroke-dasharray") == dashed - 1


def test_map_names_compositions_and_the_variance_of_its_axes(material):
    svg = figures_potentials.draw_map(material.maps["lif-direct"], [0.51, 0.2])
    check(svg, "PC1 (51", "PC2 (20", "bulk", "Li1", "selected (60)")


def test_figures_are_the_same_each_time(material):
    draw = figures_potentials.draw_learning_curves
    assert draw(material.training, material.potentials) == draw(material.training, material.potentials)


def test_labels_are_escaped():
    with style.drawing():
        figure, _ = style.new_figure(height_in=1)
        svg = style.to_svg(figure, 'a "<b>" & c')
    assert ET.fromstring(svg).attrib["aria-label"] == 'a "<b>" & c'  # noqa: S314 - our own drawing
