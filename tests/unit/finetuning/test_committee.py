"""Deviations of committees whose members differ by known forces."""

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from small import Springs, label, rocksalt_lif

from hopline.console import InputError
from hopline.finetuning.committee import COLUMNS, differences, force_deviations, judge
from hopline.potentials.card import Card


class Member(Calculator):
    """Gives a frame's ``truth`` forces plus ``step`` times the frame's ``spread`` along x on its first atom."""

    implemented_properties = ("energy", "forces")

    def __init__(self, step):
        super().__init__()
        self.step = step

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute the forces; the energy is of no interest."""
        super().calculate(atoms, properties, system_changes)
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = self.step * atoms.info["spread"]
        self.results = {"energy": 0.0, "forces": forces}


def made(spreads, errors):
    frames = []
    for row, (spread, error) in enumerate(zip(spreads, errors, strict=True)):
        forces = np.zeros((8, 3))
        forces[0, 1] = error
        frames.append(label(rocksalt_lif(seed=row), forces=forces, temperature_K=300.0 + row))
        frames[-1].info["spread"] = spread
    return frames


def test_members_at_plus_and_minus_one_deviate_by_one():
    forces = np.zeros((2, 3, 3))
    forces[:, 1, 0] = [-1.0, 1.0]
    forces[:, 2] = [[-3.0, 0.0, 4.0], [3.0, 0.0, -4.0]]
    assert force_deviations(forces) == pytest.approx([0.0, 1.0, 5.0])


def test_the_population_s_convention_is_used():
    forces = np.random.default_rng(0).normal(size=(5, 40, 3))
    by_component = forces.std(axis=0, ddof=0)
    assert force_deviations(forces) == pytest.approx(np.sqrt((by_component**2).sum(axis=1)))


def test_a_common_error_and_the_order_of_members_leave_the_deviation_alone():
    rng = np.random.default_rng(1)
    forces = rng.normal(size=(4, 10, 3))
    moved = forces[[2, 0, 3, 1]] + rng.normal(size=(10, 3))
    assert force_deviations(moved) == pytest.approx(force_deviations(forces))


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 3), (2, 4, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="two or more members"):
        force_deviations(np.zeros(shape))


def test_figures_of_a_committee_with_known_spread_and_error():
    frames = made([0.1, 0.3, 0.2], [0.05, 0.5, 0.1])
    found = judge([Member(-1), Member(1)], frames)
    table = found.deviations
    assert tuple(table.columns) == COLUMNS
    assert table["max_deviation_meV_per_A"].to_numpy() == pytest.approx([100, 300, 200])
    assert table["mean_deviation_meV_per_A"].to_numpy() == pytest.approx([12.5, 37.5, 25])
    assert table["max_error_meV_per_A"].to_numpy() == pytest.approx([50, 500, 100])
    assert table["temperature_K"].tolist() == [300.0, 301.0, 302.0]
    assert found.figures["mean_deviation_meV_per_A"] == pytest.approx(25)
    assert found.figures["max_deviation_frame"] == frames[1].info["frame_id"]
    assert found.figures["spearman_mean_deviation_and_error"] == pytest.approx(1.0)


def test_the_correlation_is_of_ranks_and_knows_its_sign():
    found = judge([Member(-1), Member(1)], made([0.1, 0.2, 0.3, 0.4], [8.0, 4.0, 2.0, 1.0]))
    assert found.figures["spearman_mean_deviation_and_error"] == pytest.approx(-1.0)
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    found = judge([Member(-1), Member(1)], made([0.1, 0.2, 0.3, 0.4], [0.1, 2.0, 1.0, 9.0]))
    assert found.figures["spearman_max_deviation_and_error"] == pytest.approx(0.8)


def test_frames_without_labels_have_a_deviation_and_no_error():
    frames = made([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])
    for atoms in frames:
        del atoms.arrays["REF_forces"], atoms.info["temperature_K"]
    found = judge([Member(-1), Member(1)], frames)
    assert found.figures["n_frames_labelled"] == 0
    assert found.figures["mean_error_meV_per_A"] is None
    assert found.figures["spearman_mean_deviation_and_error"] is None
    assert found.deviations["mean_error_meV_per_A"].isna().all()
    assert found.figures["max_deviation_meV_per_A"] == pytest.approx(300)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_member_that_gives_no_finite_force_is_named_with_the_frame(number):
    frames = made([0.1, 0.2, number], [0.1, 0.2, 0.3])
    sound = Springs(rocksalt_lif(rattle_A=0).positions)
    told = f"gives a force on frame {frames[2].info['frame_id']} that is not a finite number"
    with pytest.raises(InputError, match=f"^member 2 {told}$"):
        judge([sound, Member(1)], frames)
    with pytest.raises(InputError, match=f"^mace-7 {told}$"):
        judge([Member(1), sound], frames, names=["mace-7", "mace-8"])


def trained(name="one", *, recipe=None, **changes):
    """The card of a training; recipes and frames are the same but for what is asked for."""
    content = {
        "name": name, "family": "mace", "model_file": f"{name}.pt", "model_sha256": name, "dtype": "float64",
        "dataset_sha256": "d", "frames": {"train": 30, "valid": 5},
        "recipe": {"strategy": "naive", "learning_rate": 1e-3, "seed": 1, "best_epoch": 7} | (recipe or {}),
    }  # fmt: skip
    return Card(**content | changes)


def test_members_that_differ_in_their_seed_alone_differ_in_nothing():
    another = {"seed": 2, "best_epoch": 9}
    cards = [trained("one"), trained("two", recipe=another, proofs={"a": 1}, atom_energies_eV={"Li": -1.0})]
    assert differences(cards) == {}


def test_a_model_that_is_a_member_twice_is_refused():
    twice = [trained("one"), trained("two"), trained("again", model_sha256="one")]
    with pytest.raises(InputError, match="one and again are the same model: they cannot disagree"):
        differences(twice)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"recipe": {"learning_rate": 2e-3}}, {"learning_rate": [1e-3, 1e-3, 2e-3]}),
        ({"dataset_sha256": "e"}, {"dataset": ["d", "d", "e"]}),
        ({"frames": {"train": 20, "valid": 5}}, {"train frames": [30, 30, 20]}),
        ({"parent_card_sha256": "p"}, {"parent": [None, None, "p"]}),
        (
            {"family": "chgnet", "dtype": "float32"},
            {"family": ["mace", "mace", "chgnet"], "dtype": ["float64", "float64", "float32"]},
        ),
        # settings that come with another strategy are not named one by one
        (
            {"recipe": {"strategy": "lora", "lora_rank": 4}},
            {"strategy": ["naive", "naive", "lora"]},
        ),
    ],
)
def test_what_members_differ_in_is_named_with_each_member_s_value(changes, differing):
    assert (
        differences([trained("one"), trained("two", recipe={"seed": 2}), trained("three", **changes)])
        == differing
    )


def test_a_shipped_and_a_trained_member_differ_in_what_they_are_made_of():
    shipped = Card(
        name="0.3.0",
        family="mace",
        model_file="m.pt",
        model_sha256="m",
        dtype="float64",
        recipe={"weights": "small"},
    )
    assert differences([shipped, trained()]) == {
        "strategy": [None, "naive"], "weights": ["small", None], "dataset": [None, "d"],
    }  # fmt: skip
