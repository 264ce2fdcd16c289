"""Atomic references from energies whose references are known."""

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

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
