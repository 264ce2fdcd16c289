"""Atomic references from energies whose references are known."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from small import label

from hopline.console import InputError
from hopline.finetuning import references

KNOWN_EV = {"H": -13.6, "Li": -203.25, "F": -651.5}
energies = st.floats(-1e3, 1e3)


def frames_of(*formulas):
    return [Atoms(formula) for formula in formulas]


@settings(max_examples=50, deadline=None)
@given(hydrogen=energies, lithium=energies, fluorine=energies)
def test_references_that_the_compositions_determine_are_recovered(hydrogen, lithium, fluorine):
    known = {"H": hydrogen, "Li": lithium, "F": fluorine}
    made = frames_of("LiF", "Li2F", "HLiF", "H2Li3F")
    fitted = references.fit_atom_energies(made, references.sum_of_atoms(made, known))
    assert fitted == pytest.approx(known, abs=1e-8)


def test_where_they_do_not_the_sums_are_kept_and_the_smallest_taken():
    made = frames_of("Li16F16", "Li32F32")
    energies_eV = references.sum_of_atoms(made, KNOWN_EV)
    fitted = references.fit_atom_energies(made, energies_eV)
    np.testing.assert_allclose(references.sum_of_atoms(made, fitted), energies_eV)
    assert fitted["Li"] == pytest.approx(fitted["F"]) == pytest.approx((KNOWN_EV["Li"] + KNOWN_EV["F"]) / 2)


def test_scatter_is_averaged():
    made = frames_of(*["LiF", "Li2F"] * 200)
    noise = np.random.default_rng(0).normal(scale=0.1, size=400)
    fitted = references.fit_atom_energies(made, references.sum_of_atoms(made, KNOWN_EV) + noise)
    # standard error of Li: sqrt(2 x 0.1^2 / 200) = 0.010; five of them fail by chance once in 1.7 million
    assert fitted["Li"] == pytest.approx(KNOWN_EV["Li"], abs=0.05)


def test_isolated_atoms_are_taken_as_they_are_and_none_may_lack():
    assert references.choose_isolated(KNOWN_EV, frames_of("FLi")) == {
        "Li": KNOWN_EV["Li"],
        "F": KNOWN_EV["F"],
    }
    with pytest.raises(InputError, match="lack Mg, Ti"):
        references.choose_isolated(KNOWN_EV, frames_of("LiF", "TiMgH"))


LEVEL = "PBE pw.x; 90/360 Ry; k 2x2x2+111; cold 0.04 Ry; F 257f2c74; Li 624e3e05"
ATOM = "PBE pw.x; 90/360 Ry; k 1x1x1+000; gaussian 0.001 Ry; magnetization 1; {}"
ISOLATED = {
    "energies_eV": {"Li": -203.25, "F": -651.5, "H": -13.6},
    "level_of_theory": {"Li": ATOM.format("Li 624e3e05"), "F": ATOM.format("F 257f2c74")},
}


def bound_lif(binding_eV_per_atom=-4.3, level=LEVEL):
    made = frames_of("LiF", "Li2F2", "Li3F2")
    sums = references.sum_of_atoms(made, KNOWN_EV)
    for frame, energy_eV in zip(made, sums, strict=True):
        label(frame, energy_eV=energy_eV + binding_eV_per_atom * len(frame), level_of_theory=level)
    return made


def test_a_dataset_holds_isolated_atoms_what_they_agree_in_and_the_binding():
    made = bound_lif()
    content = references.describe(made[:2], made[2:], ISOLATED)
    assert content["isolated_atom_energies_eV"] == content["atom_energies_eV"] == {"Li": -203.25, "F": -651.5}
    assert content["atom_energies_kind"] == "isolated atoms"
    assert content["isolated_atom_levels_of_theory"] == ISOLATED["level_of_theory"]
    assert content["isolated_atoms_agree_with_the_frames_in"] == {
        element: ["functional", "code", "cutoff", "pseudopotential"] for element in ("Li", "F")
    }
    assert content["mean_binding_energy_eV_per_atom"] == pytest.approx(-4.3)
    # the estimate rests on the training frames alone, LiF and Li2F2
    assert sum(content["estimated_atom_energies_eV"].values()) == pytest.approx(-203.25 - 651.5 - 8.6)


def test_without_isolated_atoms_references_are_estimated():
    made = bound_lif()
    content = references.describe(made, [], None)
    assert content["atom_energies_kind"] == "estimated from the training frames"
    assert content["isolated_atom_energies_eV"] is None
    assert sum(content["atom_energies_eV"].values()) == pytest.approx(-203.25 - 651.5 - 8.6)


@pytest.mark.parametrize(
    ("was", "other", "what"),
    [
        ("PBE", "PBEsol", "another functional than the frames: PBEsol, not PBE"),
        ("90/360", "80/320", "another cutoff than the frames: 80/320 Ry, not 90/360 Ry"),
        ("257f2c74", "00000000", "the isolated F atom has another pseudopotential than the frames: 00000000"),
        ("pw.x", "VASP", "another code than the frames"),
    ],
)
def test_atoms_of_another_level_of_theory_are_refused(was, other, what):
    levels = {element: level.replace(was, other) for element, level in ISOLATED["level_of_theory"].items()}
    with pytest.raises(InputError, match=what):
        references.describe(bound_lif(), [], ISOLATED | {"level_of_theory": levels})


@pytest.mark.parametrize(
    ("level", "agreed"),
    [
        ("unstated", []),
        ("PBE 110/880 Ry", []),
        ("PBE pw.x; 90/360 Ry; F md5 0123abcd", ["functional", "code", "cutoff"]),
        ("PBE pw.x; F F.upf", ["functional", "code"]),
    ],
)
def test_only_what_both_state_is_compared(level, agreed):
    content = references.describe(bound_lif(level=level), [], ISOLATED)
    assert content["isolated_atoms_agree_with_the_frames_in"]["F"] == agreed
    silent = references.describe(bound_lif(), [], {"energies_eV": ISOLATED["energies_eV"]})
    assert silent["isolated_atoms_agree_with_the_frames_in"] == {"Li": [], "F": []}


def test_vasp_levels_are_compared_too():
    frames_level = (
        "PBE VASP; 520 eV; k 2x2x2 Gamma; gaussian 0.05 eV; F PAW_PBE F 08Apr2002; Li PAW_PBE Li_sv 10Sep2004"
    )
    atoms = "PBE VASP; 520 eV; k 1x1x1 Gamma; gaussian 0.01 eV; spin-polarised; {}"
    levels = {"F": atoms.format("F PAW_PBE F 08Apr2002"), "Li": atoms.format("Li PAW_PBE Li 17Jan2003")}
    content = {"energies_eV": ISOLATED["energies_eV"], "level_of_theory": levels}
    with pytest.raises(InputError, match=r"isolated Li atom has another pseudopotential .* Li_sv"):
        references.describe(bound_lif(level=frames_level), [], content)
    levels["Li"] = atoms.format("Li PAW_PBE Li_sv 10Sep2004").replace("520", "600")
    with pytest.raises(InputError, match="another cutoff than the frames: 600 eV, not 520 eV"):
        references.describe(bound_lif(level=frames_level), [], content)


@pytest.mark.parametrize("binding_eV_per_atom", [1.5, -16.0, 400.0, -4000.0])
def test_a_binding_that_no_matter_has_is_refused(binding_eV_per_atom):
    with pytest.raises(InputError, match=r"bound by .* eV/atom on average, matter by -15 to 1"):
        references.describe(bound_lif(binding_eV_per_atom), [], ISOLATED)


@pytest.mark.parametrize(
    "content",
    [{}, {"energies_eV": 3}, {"energies_eV": {"Li": "x", "F": 1}}, {"energies_eV": {"Li": None, "F": 1}}],
)
def test_a_file_of_another_kind_is_refused(content):
    with pytest.raises(InputError, match="under energies_eV"):
        references.describe(bound_lif(), [], content)
