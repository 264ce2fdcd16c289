"""The table of errors: what a row is made of, and who is compared with whom."""

import json

import pytest

from hopline.console import InputError
from hopline.files import sha256
from hopline.report.evaluations import COLUMNS, HELD_OUT, compare

ERRORS = {
    "n_frames": 10, "n_frames_left_out": 0, "energy_rmse_meV_per_atom": 5.0,
    "energy_rmse_shift_removed_meV_per_atom": 2.0, "force_mae_meV_per_A": 40.0, "force_slope": 0.9,
    "stress_rmse_GPa": None,
}  # fmt: skip


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def evaluation(folder, force_rmse_meV_per_A, name="evaluation", **more):
    content = ERRORS | {"force_rmse_meV_per_A": force_rmse_meV_per_A, "test_sha256": "t"} | more
    return write(folder / f"{name}.json", content)


@pytest.fixture
def family(tmp_path):
    """A shipped potential and its fine-tune, with their evaluations on two test sets."""
    parent, child = (tmp_path / "lif" / "potentials" / name for name in ("mpa", "ft"))
    cards = [
        write(
            parent / "card.json",
            {"name": "mpa", "family": "mace", "dtype": "float64", "recipe": {"weights": "m"}},
        )
    ]
    made = {"strategy": "replay", "seed": 7, "learning_rate": 1e-4, "best_epoch": 3}
    content = {"name": "ft", "family": "mace", "dtype": "float32", "parent_card_sha256": sha256(cards[0])}
    cards.append(
        write(child / "card.json", content | {"recipe": made, "frames": {"train": 30, "replay": 100}})
    )
    found = [
        evaluation(parent, 200.0),
        evaluation(child, 50.0),
        evaluation(parent / "evaluations", 80.0, "forgetting", test_sha256="f"),
        evaluation(child / "evaluations", 100.0, "forgetting", test_sha256="f"),
    ]
    return cards, found


def test_a_fine_tune_is_compared_with_its_parent_on_each_test_set(family):
    table = compare(*family)
    assert tuple(table.columns) == COLUMNS
    rows = table.set_index(["potential", "test_set"])
    assert list(rows.index) == [
        ("ft", "forgetting"),
        ("ft", HELD_OUT),
        ("mpa", "forgetting"),
        ("mpa", HELD_OUT),
    ]
    assert rows.loc[("ft", HELD_OUT), "force_rmse_over_parent"] == pytest.approx(0.25)
    assert rows.loc[("ft", "forgetting"), "force_rmse_over_parent"] == pytest.approx(1.25)
    assert rows.loc["mpa"]["force_rmse_over_parent"].isna().all()
    row = rows.loc[("ft", HELD_OUT)]
    assert list(row[["system", "parent", "strategy", "train_frames", "replay_frames", "seed"]]) == [
        "lif", "mpa", "replay", 30, 100, 7,
    ]  # fmt: skip


def test_seeds_keep_all_their_digits(family):
    assert ",7," in compare(*family).to_csv(index=False, float_format="%.6g")


def test_errors_on_other_frames_are_not_compared(family):
    cards, found = family
    evaluation(found[0].parent, 200.0, test_sha256="another dataset's")
    rows = compare(cards, found).set_index(["potential", "test_set"])
    assert rows["force_rmse_over_parent"].notna().sum() == 1


def test_nothing_gives_a_header():
    assert tuple(compare([], []).columns) == COLUMNS


def test_strangers_and_old_files_are_refused(family):
    cards, found = family
    with pytest.raises(InputError, match="is of ft in lif, whose card was not given"):
        compare(cards[:1], found)
    write(found[0], {"force_rmse_meV_per_A": 1.0})
    with pytest.raises(InputError, match="has no n_frames: make it anew"):
        compare(cards, found)
