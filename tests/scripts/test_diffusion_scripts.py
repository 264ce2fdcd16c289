"""The diffusion scripts: files in, files out, one line and status 2 on bad input."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_walks import gaussian_walk, trajectory_of, write_h5

SCRIPTS = Path(__file__).parents[2] / "scripts"
SECTION_7 = {
    "diffusivity_cm2_per_s", "standard_error_cm2_per_s", "interval_95_cm2_per_s", "replicas", "lag_window_ps", "hops",
    "msd_exponent", "energy_drift_meV_per_atom_per_ps", "upper_bound_cm2_per_s", "temperature_K", "verdict", "reasons",
    "species", "n_mobile", "method",
}  # fmt: skip


def call(script, *arguments):
    return subprocess.run(
        [sys.executable, SCRIPTS / script, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def refused(result, *words):
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Three replicas of 8 Li with D = 1e-4 cm^2/s, the third one with a sidecar that says it exploded."""
    folder = tmp_path_factory.mktemp("replicas")
    paths = []
    for row in range(3):
        walk = gaussian_walk(diffusivity_A2_per_ps=1.0, frames=500, walkers=8, seed=40 + row)
        paths.append(write_h5(folder / f"nve-{row + 1}.h5", trajectory_of(walk)))
        status = {"status": "exploded" if row == 2 else "finished", "reason": "too hot", "checks": {}}
        paths[-1].with_suffix(".json").write_text(json.dumps(status))
    return paths


def test_estimate_then_fit(tmp_path, replicas):
    out, curve = tmp_path / "700K.json", tmp_path / "700K.curve.csv"
    arguments = ["--trajectory", *replicas, "--species", "Li", "--diffusivity", out, "--curve", curve]
    result = call("estimate_diffusivity.py", *arguments, "--temperature-K", 700)
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    assert set(found) >= SECTION_7
    low, high = found["interval_95_cm2_per_s"]
    assert low < 1e-4 < high
    assert [one["used"] for one in found["replicas"]] == [True, True, False]
    assert any("exploded: too hot" in reason for reason in found["reasons"])
    assert Path(f"{out}.provenance.json").is_file()
    rows = list(csv.DictReader(curve.open()))
    assert float(rows[0]["mean_msd_A2"]) == pytest.approx(6 * 0.1, rel=0.1)
    assert {"lag_ps", "msd_A2_1", "msd_A2_2", "local_exponent"} <= set(rows[0])

    hotter = tmp_path / "900K.json"
    hotter.write_text(json.dumps({**found, "temperature_K": 900, "diffusivity_cm2_per_s": 3e-4}))
    fit = call("fit_arrhenius.py", "--diffusivity", out, hotter, "--arrhenius", tmp_path / "arrhenius.json")
    assert fit.returncode == 0, fit.stderr
    line = json.loads((tmp_path / "arrhenius.json").read_text())
    expected = 8.617333262e-5 * np.log(3e-4 / found["diffusivity_cm2_per_s"]) / (1 / 700 - 1 / 900)
    assert line["activation_energy_eV"] == pytest.approx(expected, rel=1e-6)
    assert set(line["band"][0]) == {"inverse_temperature_per_K", "diffusivity", "low", "high"}

    alone = call("fit_arrhenius.py", "--diffusivity", out, "--arrhenius", tmp_path / "alone.json")
    assert alone.returncode == 0
    assert json.loads((tmp_path / "alone.json").read_text())["activation_energy_eV"] is None


def test_pair_correlations(tmp_path, replicas):
    out = tmp_path / "rdf.csv"
    flags = ["--correlations", out, "--bin-width-A", 0.5]
    result = call("compute_pair_correlations.py", "--trajectory", *replicas, *flags)
    assert result.returncode == 0, result.stderr
    of_all = out.read_text()
    # the third exploded, so its frames are left out; alone it is all there is
    call("compute_pair_correlations.py", "--trajectory", *replicas[:2], *flags)
    assert out.read_text() == of_all
    result = call("compute_pair_correlations.py", "--trajectory", replicas[2], *flags)
    assert "every replica exploded" in result.stderr
    assert out.read_text() != of_all
    rows = list(csv.DictReader(out.open()))
    assert {(row["centre"], row["neighbour"]) for row in rows} == {
        ("Li", "Li"),
        ("Li", "F"),
        ("F", "Li"),
        ("F", "F"),
    }


def test_bad_input_is_one_line(tmp_path, replicas):
    out = ["--species", "Li", "--diffusivity", tmp_path / "x.json"]
    cut = tmp_path / "cut.h5"
    cut.write_bytes(replicas[0].read_bytes()[:5000])
    refused(call("estimate_diffusivity.py", "--trajectory", cut, *out), "cut.h5")
    refused(call("estimate_diffusivity.py", "--trajectory", tmp_path / "no.h5", *out), "does not exist")
    arguments = ["--trajectory", replicas[0], "--species", "Na", "--diffusivity", tmp_path / "x.json"]
    refused(call("estimate_diffusivity.py", *arguments), "no Na", "Li, F")
    (tmp_path / "bad.json").write_text("{")
    refused(
        call("fit_arrhenius.py", "--diffusivity", tmp_path / "bad.json", "--arrhenius", tmp_path / "a"),
        "bad.json",
    )
    refused(
        call(
            "compute_pair_correlations.py",
            "--trajectory",
            cut,
            "--correlations",
            tmp_path / "r",
            "--bin-width-A",
            1,
        ),
        "cut.h5",
    )
    assert not (tmp_path / "x.json").exists()
