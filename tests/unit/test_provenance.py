"""Each result says where it comes from."""

from pathlib import Path

from hopline import files, provenance


def test_the_record_names_inputs_settings_versions_and_time(tmp_path):
    (tmp_path / "in.txt").write_text("abc")
    inputs = [tmp_path / "in.txt", tmp_path / "folder"]
    run = provenance.start({"bins": 3, "pool": [Path("a"), Path("b")], "none": None}, inputs)
    run.write_beside(tmp_path / "a.json", tmp_path / "b.csv")
    record = files.read_json(tmp_path / "a.json.provenance.json")
    assert record == files.read_json(tmp_path / "b.csv.provenance.json")
    assert record["settings"] == {"bins": 3, "pool": ["a", "b"], "none": None}
    assert record["inputs_sha256"] == {str(tmp_path / "in.txt"): files.sha256(tmp_path / "in.txt")}
    assert {"python", "numpy", "ase"} <= set(record["versions"])
    assert record["wall_time_s"] >= 0
    assert record["device"]
    assert set(record) == {
        "script", "settings", "inputs_sha256", "versions", "commit", "device", "started", "wall_time_s",
    }  # fmt: skip
