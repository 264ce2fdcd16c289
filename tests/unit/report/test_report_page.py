"""The page holds every number, survives missing parts, escapes names, and needs nothing from elsewhere."""

import html
import re
from html.parser import HTMLParser

import pytest
import report_results

from hopline.console import InputError
from hopline.report import numbers, trust
from hopline.report.inputs import Material, read_material
from hopline.report.page import render
from hopline.report.places import Point, names_below, point_of

SECTIONS = (
    "trust", "arrhenius", "diffusivities", "msd", "pairs", "potentials", "parity", "learning", "sampling", "dynamics",
    "timings", "provenance",
)  # fmt: skip


@pytest.fixture(scope="module")
def template(repository):
    return repository / "resources/report/report.html.j2"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return report_results.write_results(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def material(found):
    return read_material("lif", host="LiF", **found)


@pytest.fixture(scope="module")
def page(material, template):
    return render(material, template)


def text_of(page):
    """Return what a reader sees, with ordinary spaces and without figures."""
    page = re.sub(r"<(svg|style).*?</\1>", "", page, flags=re.DOTALL)
    page = html.unescape(re.sub(r"<[^>]+>", "", page))
    return re.sub(r"\s+", " ", page)


def spaced(text):
    return re.sub(r"\s+", " ", text).translate(
        {raised: chr(plain).replace("-", "\N{MINUS SIGN}") for plain, raised in numbers.SUPERSCRIPTS.items()}
    )


class Balance(HTMLParser):
    """Checks that tags close in order."""

    VOID = ("meta", "link", "br", "img", "path", "use", "image", "hr")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002, D102 - the parser's own interface
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """A tag that closes itself leaves nothing open."""

    def handle_endtag(self, tag):  # noqa: D102
        if tag not in self.VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag


def test_tags_are_balanced(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_every_section_is_there(page):
    for name in SECTIONS:
        assert f'id="{name}"' in page


def test_every_diffusivity_and_energy_is_in_the_page(material, page):
    text = text_of(page)
    for point, result in material.diffusivities.items():
        assert f"{point.temperature_K:g}" in text
        assert spaced(trust.diffusivity_text(result)) in text
        low, high = result["interval_95_cm2_per_s"]
        assert spaced(f"{numbers.power(low)} to {numbers.power(high)}") in text
        assert result["reasons"][0] in text
    for line in material.arrhenius.values():
        energy = numbers.with_error(line["activation_energy_eV"], line["activation_energy_standard_error_eV"])
        assert spaced(energy) in text


def test_every_error_of_a_potential_is_in_the_page(material, page):
    text = text_of(page)
    for result in material.evaluations.values():
        for key in (
            "energy_rmse_shift_removed_meV_per_atom",
            "force_rmse_meV_per_A",
            "stress_rmse_GPa",
            "force_mae_meV_per_A",
        ):
            assert numbers.plain(result[key]) in text
        assert f"{result['force_slope']:.3f}" in text
    ratio = (
        material.evaluations["chgnet-ft"]["force_rmse_meV_per_A"]
        / material.evaluations["chgnet"]["force_rmse_meV_per_A"]
    )
    assert f"{ratio:.2f}" in text


def test_further_sets_stability_and_committees_are_told(material, page):
    text = text_of(page)
    assert list(material.further) == [("chgnet", "forgetting"), ("chgnet-ft", "forgetting")]
    for told in ("Errors on further test sets", "forgetting", "0.690", "0.792"):
        assert told in text
    for told in ("Stability of trained potentials", "Li-Li in crystal", "1.32", "all 2 ps were run"):
        assert told in text
    for told in ("Committees", "chgnet, chgnet-ft", "48.2", "391", "0.83"):
        assert told in text
    assert "The members of committee pair differ in more than their seed" in text
    assert "They differ in strategy, dataset" in text
    assert "chgnet-ft has holes" in text
    assert "Li-Li in crystal behind 0.48 eV" in text
    assert "F-F in crystal behind" not in text


def test_sampling_dynamics_and_provenance_are_told(page):
    text = text_of(page)
    for told in (
        "0.871", "8.3 %", "PBE, 80 Ry, Quantum ESPRESSO 6.7", "SCF did not converge", "36 held out for testing",
        "a force of 71.2 eV/A exceeds 60 eV/A", "numpy 2.4.6", "ab" * 32, "0123456789abcdef",
        "label espresso", "simulate replica",
    ):  # fmt: skip
        assert told in text


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"<script|@import|<iframe", page)
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page) + re.findall(r"url\(([^)]*)\)", page)
    assert [one for one in addresses if not one.startswith(("#", "data:", '"#'))] == []
    assert set(re.findall(r"https?://[^\"' <>)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_a_page_of_nothing_says_what_is_missing(template):
    text = text_of(render(Material("lif"), template))
    assert "no diffusivity has been estimated yet" in text
    assert text.count("Missing:") >= len(SECTIONS) - 3


@pytest.mark.parametrize(
    "left",
    ["diffusivities", "cards", "evaluations", "sidecars", "coverage", "datasets", "curves", "arrhenius"],
)
def test_any_one_part_may_be_missing(found, template, left):
    parts = {kind: paths for kind, paths in found.items() if kind != left}
    # the figures are the slow part and have their own tests
    parts = {
        kind: paths for kind, paths in parts.items() if kind not in {"predictions", "correlations", "maps"}
    }
    page = render(read_material("lif", **parts), template)
    assert "Missing:" in page
    for name in SECTIONS:
        assert f'id="{name}"' in page


def test_names_are_escaped(template):
    name = "a<script>alert(1)</script>&b"
    result = {
        "verdict": "weak", "reasons": ["x < y & <b>z</b>"], "diffusivity_cm2_per_s": 1e-5,
        "standard_error_cm2_per_s": 2e-6, "interval_95_cm2_per_s": [1e-6, 2e-5], "species": "<Li>",
    }  # fmt: skip
    material = Material(name, host=name, mobile="<Li>", diffusivities={Point(name, name, 800.0): result})
    page = render(material, template)
    assert "<script" not in page
    assert "<b>z</b>" not in page
    assert "a&lt;script&gt;" in page
    assert "x &lt; y &amp; &lt;b&gt;z" in page


def test_headline_takes_the_potential_with_the_least_force_error(material):
    answers = trust.answer_lines(material)
    assert [one.potential for one in answers] == ["chgnet-ft", "chgnet"]
    told = trust.headline(material, answers)
    energy = material.arrhenius["chgnet-ft", "Li1"]["activation_energy_eV"]
    assert told.startswith(f"Li in LiF (chgnet-ft, Li1): activation energy {energy:.2f}{numbers.GAP}±")
    assert told.endswith("cm²/s, reliable.")


def test_headline_without_any_line_gives_the_bound_and_the_reason(material):
    bound = {
        point: one for point, one in material.diffusivities.items() if one["verdict"] == "no-diffusion-seen"
    }
    alone = Material(
        "lif", mobile="Li", diffusivities=bound,
        arrhenius={("chgnet-ft", "Li1"): {"activation_energy_eV": None, "reasons": ["A line needs two temperatures."]}},
    )  # fmt: skip
    told = trust.headline(alone, trust.answer_lines(alone))
    assert f"no diffusion was seen at 700 K, D < {numbers.power(3.1e-6)} cm²/s" in told
    assert "no activation energy can be given: a line needs two temperatures" in told


@pytest.mark.parametrize(
    ("change", "verdict", "word"),
    [
        ({}, "reliable", None),
        ({"points_used": [{"verdict": "reliable"}] * 2}, "weak", "Only 2"),
        ({"points_used": [{"verdict": "reliable"}] * 2 + [{"verdict": "weak"}]}, "weak", "itself weak"),
        ({"activation_energy_interval_95_eV": [0.1, 0.7]}, "weak", "wide"),
        ({"activation_energy_interval_95_eV": None}, "weak", "unknown"),
        (
            {"activation_energy_eV": -0.2, "activation_energy_interval_95_eV": [-0.25, -0.15]},
            "weak",
            "not positive",
        ),
        ({"goodness_of_fit": 0.01}, "weak", "one line"),
        ({"activation_energy_eV": None, "reasons": ["No points."]}, "no-line", "No points"),
    ],
)
def test_verdict_of_a_line(change, verdict, word):
    line = {
        "activation_energy_eV": 0.4, "activation_energy_interval_95_eV": [0.35, 0.45], "goodness_of_fit": 0.5,
        "points_used": [{"verdict": "reliable"}] * 3, "reasons": [],
    }  # fmt: skip
    found, reasons = trust.judge_line({**line, **change})
    assert found == verdict
    assert word is None or word in " ".join(reasons)


def test_cautions_of_a_demonstration(material):
    titles = " ".join(one.title for one in trust.cautions(material, trust.answer_lines(material)))
    for word in (
        "Small cell",
        "Short replicas",
        "chgnet is too soft",
        "Small test set",
        "did not finish",
        "lif-direct",
    ):
        assert word in titles


def test_a_production_study_has_no_cautions():
    point = Point("mace", "H8", 500.0)
    result = {"verdict": "reliable", "replicas": [{"length_ps": 1000.0}] * 3, "diffusivity_cm2_per_s": 1e-5}
    quiet = Material(
        "mg-h", diffusivities={point: result},
        evaluations={"mace": {"n_frames": 400, "force_slope": 0.99, "force_rmse_meV_per_A": 20.0}},
    )  # fmt: skip
    assert trust.cautions(quiet, trust.answer_lines(quiet)) == []


def test_one_run_with_two_results_counts_once(found, material):
    copy = found["cards"][1].with_name("card.json.provenance.json")
    copy.with_name("training.csv.provenance.json").write_text(copy.read_text())
    again = read_material("lif", **found)
    assert len(again.records) == len(material.records)


def test_places():
    point = point_of("results/lif/diffusion/chgnet-ft/Li1/850.5K.curve.csv", "diffusion")
    assert point == Point("chgnet-ft", "Li1", 850.5)
    assert names_below("/diffusion/x/results/lif/diffusion/a/b/c", "diffusion", 2) == ("a", "b")
    for wrong in ("850K.json", "diffusion/chgnet/850K.json", "diffusion/chgnet/Li1/hot.json"):
        with pytest.raises(InputError):
            point_of(wrong, "diffusion")


def test_an_invalid_diffusivity_is_not_quoted(material):
    point = Point("chgnet", "Li1", 850.0)
    spoiled = {**material.diffusivities[point], "verdict": "invalid"}
    alone = Material("lif", mobile="Li", diffusivities={point: spoiled})
    answers = trust.answer_lines(alone)
    assert answers[0].best_diffusivity is None
    assert "every diffusivity is invalid" in trust.headline(alone, answers)
