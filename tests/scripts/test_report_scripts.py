"""report_system.py and collect_summary.py as a user runs them, and the page in a real browser."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import report_results

BROWSER = shutil.which("chromium")


def run(repository, script, *flags):
    command = [sys.executable, str(repository / "scripts" / f"{script}.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("study")
    found = report_results.write_results(folder)
    report = folder / "report.html"
    done = run(
        repository,
        "report_system",
        "--system",
        "lif",
        "--host",
        "LiF",
        *report_results.as_flags(found),
        "--report",
        report,
    )
    assert done.returncode == 0, done.stderr
    return found, report


def refused(done, *words):
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_report_and_its_provenance(study):
    found, report = study
    assert report.read_text().startswith("<!DOCTYPE html>")
    record = json.loads(report.with_name("report.html.provenance.json").read_text())
    assert len(record["inputs_sha256"]) == sum(map(len, found.values()))


def test_report_of_nothing(repository, tmp_path):
    done = run(
        repository, "report_system", "--system", "lif", "--curves", "--maps", "--report", tmp_path / "r.html"
    )
    assert done.returncode == 0, done.stderr
    assert "no diffusivity has been estimated yet" in (tmp_path / "r.html").read_text()


def test_report_refuses_bad_files(repository, tmp_path):
    report = tmp_path / "report.html"

    def attempt(*flags):
        return run(repository, "report_system", "--system", "lif", *flags, "--report", report)

    cut = tmp_path / "diffusion/chgnet/Li1/850K.json"
    cut.parent.mkdir(parents=True)
    cut.write_text('{"diffusivity')
    refused(attempt("--diffusivities", cut), "850K.json", "not complete JSON")
    outside = tmp_path / "850K.json"
    outside.write_text("{}")
    refused(attempt("--diffusivities", outside), "below a folder diffusion/")
    refused(attempt("--diffusivities", tmp_path / "diffusion/chgnet/Li1/900K.json"), "does not exist")
    wrong = tmp_path / "diffusion/chgnet/Li1/850K.curve.csv"
    wrong.write_text("a,b\n1,2\n")
    refused(attempt("--curves", wrong), "lag_ps")
    wrong.write_text("")
    refused(attempt("--curves", wrong), "not a complete table")
    refused(attempt("--template", tmp_path / "none.j2"), "none.j2")
    assert not report.exists()


def test_summary_is_tidy(repository, tmp_path, study):
    found, _ = study
    out = tmp_path / "summary.csv"
    flags = (
        "--diffusivities",
        *found["diffusivities"],
        "--arrhenius",
        *found["arrhenius"][:1],
        "--summary",
        out,
    )
    done = run(repository, "collect_summary", *flags)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    keys = [
        (row["system"], row["potential"], row["composition"], float(row["temperature_K"])) for row in rows
    ]
    assert keys == [
        ("lif", name, "Li1", kelvin) for name in ("chgnet", "chgnet-ft") for kelvin in (700.0, 850.0, 1000.0)
    ]
    first = json.loads(found["diffusivities"][0].read_text())
    assert float(rows[0]["diffusivity_cm2_per_s"]) == pytest.approx(first["diffusivity_cm2_per_s"], rel=1e-12)
    assert float(rows[0]["interval_95_high"]) == pytest.approx(first["interval_95_cm2_per_s"][1], rel=1e-12)
    line = json.loads(found["arrhenius"][0].read_text())
    assert float(rows[0]["activation_energy_eV"]) == pytest.approx(line["activation_energy_eV"], rel=1e-12)
    # a potential without a fit, and a point without a diffusivity, leave empty cells
    assert rows[3]["verdict"] == "no-diffusion-seen"
    assert rows[3]["activation_energy_eV"] == rows[3]["diffusivity_cm2_per_s"] == ""
    assert float(rows[3]["upper_bound_cm2_per_s"]) == pytest.approx(3.1e-6)


def test_summary_of_nothing_has_its_header(repository, tmp_path):
    done = run(repository, "collect_summary", "--summary", tmp_path / "summary.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "summary.csv").read_text().startswith("system,potential,composition,temperature_K,")


def test_summary_refuses_bad_files(repository, tmp_path, study):
    found, _ = study
    out = tmp_path / "summary.csv"
    twice = [found["diffusivities"][0]] * 2
    refused(run(repository, "collect_summary", "--diffusivities", *twice, "--summary", out), "second result")
    other = run(repository, "collect_summary", "--diffusivities", found["arrhenius"][0], "--summary", out)
    refused(other, "does not begin with a temperature")
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_page_in_a_browser(study, tmp_path):
    from PIL import Image

    _, report = study
    shot = tmp_path / "page.png"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", "--window-size=1200,6000", f"--screenshot={shot}", report.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    image = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert image.shape[:2] == (6000, 1200)
    inked = (image < 200).any(axis=2)
    assert inked.mean() > 0.02
    # nothing sticks out of the page: the outer margins stay white from top to bottom
    assert not inked[:, :40].any()
    assert not inked[:, -40:].any()
    # the potentials' colours are on the page
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(image - colour).max(axis=2) < 6).sum() > 500
