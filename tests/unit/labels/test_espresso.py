"""pw.x inputs and runs: settings, pseudopotentials, and pw.x itself where it is installed."""

import shutil
import sys
from dataclasses import replace

import ase.build
import ase.io
import numpy as np
import pytest

from hopline import frames
from hopline.console import InputError
from hopline.labels import convergence, espresso
from hopline.units import GPA_PER_EV_PER_A3

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
SETTINGS = espresso.EspressoSettings(
    functional="PBE", wavefunction_cutoff_Ry=40.0, density_cutoff_Ry=160.0, kpoints=(2, 2, 2),
    kpoints_shift=(1, 1, 1), smearing="gaussian", smearing_width_Ry=0.01, scf_threshold_Ry=1e-9,
    mixing_beta=0.7, max_scf_steps=60,
)  # fmt: skip


@pytest.fixture
def upfs(shared_data):
    return espresso.find_pseudopotentials(shared_data / "upf", ["Li", "F"])


@pytest.fixture
def lif():
    return ase.build.bulk("LiF", "rocksalt", a=4.08)


@pytest.mark.parametrize("name", ["Li.upf", "Li.UPF", "li_pbe_v1.4.F.UPF", "Li.pbe.UPF", "LI-x.upf"])
def test_pseudopotentials_are_found_by_their_element(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "Lu.upf").touch()
    assert espresso.find_pseudopotentials(tmp_path, ["Li"])["Li"].name == name


def test_missing_and_ambiguous_pseudopotentials_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pseudopotential of F"):
        espresso.find_pseudopotentials(tmp_path, ["F"])
    (tmp_path / "F.upf").touch()
    (tmp_path / "F.pbe.UPF").touch()
    with pytest.raises(InputError, match=r"2 pseudopotentials of F \(F.pbe.UPF, F.upf\)"):
        espresso.find_pseudopotentials(tmp_path, ["F"])
    with pytest.raises(InputError, match="does not exist"):
        espresso.find_pseudopotentials(tmp_path / "nowhere", ["F"])


def test_the_input_holds_the_settings_and_reads_back(tmp_path, lif, upfs):
    lif.rattle(0.05, seed=1)
    lif.set_initial_magnetic_moments([1.0, 0.0])
    text = espresso.write_input(lif, SETTINGS, upfs)
    flat = " ".join(text.split())
    for part in (
        "calculation = 'scf'", "tprnfor = .true.", "tstress = .true.", "disk_io = 'none'", "nosym = .true.",
        "ecutwfc = 40.0", "ecutrho = 160.0", "smearing = 'gaussian'", "degauss = 0.01",
        "electron_maxstep = 60",
        f"pseudo_dir = '{upfs['Li'].parent}'", "K_POINTS automatic 2 2 2 1 1 1",
    ):  # fmt: skip
        assert part in flat
    assert "nspin" not in text
    (tmp_path / "pw.in").write_text(text)
    back = ase.io.read(tmp_path / "pw.in", format="espresso-in")
    assert list(back.numbers) == list(lif.numbers)
    np.testing.assert_allclose(back.positions, lif.positions, atol=1e-9)


def test_gamma_alone_uses_real_wavefunctions(lif, upfs):
    gamma = replace(SETTINGS, kpoints=(1, 1, 1), kpoints_shift=(0, 0, 0))
    assert "K_POINTS gamma" in espresso.write_input(lif, gamma, upfs)


def test_isolated_atoms_carry_their_spin(upfs):
    settings = espresso.atom_settings(vars(SETTINGS), "F")
    text = " ".join(espresso.write_input(espresso.atom_box("F"), settings, upfs).split())
    for part in ("nspin = 2", "tot_magnetization = 1.0", "starting_magnetization(1) = 0.5", "K_POINTS gamma"):
        assert part in text
    assert len(set(espresso.ATOM_BOX_A)) == 3
    with pytest.raises(InputError, match="not tabulated"):
        espresso.atom_settings(vars(SETTINGS), "U")


def test_the_level_of_theory_changes_with_all_that_matters(upfs, tmp_path):
    level = espresso.level_of_theory(SETTINGS, upfs)
    other = tmp_path / "Li.upf"
    other.write_text("another")
    changed = [
        espresso.level_of_theory(replace(SETTINGS, **change), upfs)
        for change in (
            {"functional": "PBEsol"}, {"wavefunction_cutoff_Ry": 39.0}, {"density_cutoff_Ry": 161.0},
            {"kpoints": (3, 2, 2)}, {"kpoints_shift": (0, 0, 0)}, {"smearing": "cold"},
            {"smearing_width_Ry": 0.02}, {"total_magnetization": 1.0},
        )
    ]  # fmt: skip
    changed.append(espresso.level_of_theory(SETTINGS, {**upfs, "Li": other}))
    assert len({level, *changed}) == len(changed) + 1
    # numerical settings that do not move the answer leave it alone
    assert espresso.level_of_theory(replace(SETTINGS, mixing_beta=0.3), upfs) == level


@pytest.mark.parametrize(
    "change",
    [
        {"wavefunction_cutoff_Ry": -1.0}, {"density_cutoff_Ry": 100.0}, {"kpoints": (0, 1, 1)},
        {"kpoints_shift": (2, 0, 0)}, {"smearing": "gausian"}, {"smearing_width_Ry": 0.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError):
        replace(SETTINGS, **change)


def test_a_job_keeps_where_its_frame_came_from(tmp_path, lif, upfs):
    lif.info |= {"composition": "bulk", "source": "a.h5", "temperature_K": 700, "energy": -1.0, "other": 1}
    espresso.write_job(
        tmp_path / "0000", lif, SETTINGS, upfs, defaults={"system": "lif", "composition": "Li1"}
    )
    (frame,) = frames.read_frames(tmp_path / "0000" / "frame.extxyz")
    assert frame.info["system"] == "lif"
    assert frame.info["composition"] == "bulk"
    assert frame.info["frame_id"] == frames.frame_id(lif)
    assert frame.info["level_of_theory"] == espresso.level_of_theory(SETTINGS, upfs)
    assert "other" not in frame.info


def test_a_selection_of_another_pool_is_refused(lif):
    pool = [lif, lif.repeat((2, 1, 1))]
    ids = [frames.frame_id(frame) for frame in pool]
    assert espresso.pick(pool, [1, 0], [ids[1], ""])[0] is pool[1]
    with pytest.raises(InputError, match="give the pool"):
        espresso.pick(pool, [0], [ids[1]])
    with pytest.raises(InputError, match="give the pool"):
        espresso.pick(pool, [2], [""])


def test_without_pw_the_user_is_told_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "pw.in").write_text("&CONTROL\n/\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt install quantum-espresso"):
        espresso.run(tmp_path / "pw.in", tmp_path / "pw.out")
    with pytest.raises(InputError, match="launcher mpirun is not on PATH"):
        espresso.run(tmp_path / "pw.in", tmp_path / "pw.out", launcher="mpirun -np 2")


@pytest.fixture
def fake_pw(tmp_path, monkeypatch):
    """Put a script named pw.x first on PATH."""

    def make(body: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "pw.x").write_text(f"#!{sys.executable}\n{body}\n")
        (folder / "pw.x").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        (tmp_path / "pw.in").write_text("&CONTROL\n/\n")

    return make


def test_a_failed_run_keeps_its_output(tmp_path, fake_pw):
    fake_pw("print('     Program PWSCF v.6.7 starts'); raise SystemExit(3)")
    result = espresso.run(tmp_path / "pw.in", tmp_path / "pw.out")
    assert result.reason == "interrupted: the output ends without JOB DONE"
    assert "Program PWSCF" in (tmp_path / "pw.out").read_text()
    assert not list(tmp_path.glob(".pw*"))


def test_a_run_past_its_time_is_stopped_and_says_so(tmp_path, fake_pw):
    fake_pw("import time; print('     Program PWSCF v.6.7 starts', flush=True); time.sleep(60)")
    result = espresso.run(tmp_path / "pw.in", tmp_path / "pw.out", timeout_s=1.0)
    assert result.reason == "cut off: stopped at Hopline's timeout of 1 s"


def test_a_launcher_that_starts_nothing_is_refused_and_leaves_no_output(tmp_path, fake_pw):
    fake_pw("print('There are not enough slots available')")
    with pytest.raises(InputError, match=r"did not start.*not enough slots"):
        espresso.run(tmp_path / "pw.in", tmp_path / "pw.out")
    assert not (tmp_path / "pw.out").exists()
    assert not list(tmp_path.glob(".pw*"))


def test_a_run_elsewhere_takes_its_frame_along(tmp_path, fake_pw):
    fake_pw("print('     Program PWSCF v.6.7 starts')")
    (tmp_path / "frame.extxyz").write_text("frame")
    espresso.run(tmp_path / "pw.in", tmp_path / "runs" / "0000" / "pw.out")
    found = {path.name for path in (tmp_path / "runs" / "0000").iterdir()}
    assert found == {"pw.in", "frame.extxyz", "pw.out"}


def test_one_thread_and_pools_reach_pw(tmp_path, fake_pw):
    fake_pw(
        "import os, sys\nprint('Program PWSCF', sys.argv[1:], os.environ['OMP_NUM_THREADS'],"
        " os.environ['OPENBLAS_NUM_THREADS'])"
    )
    espresso.run(tmp_path / "pw.in", tmp_path / "pw.out", launcher=["env", "A=1"], pools=2)
    printed = (tmp_path / "pw.out").read_text()
    assert "['-nk', '2', '-in'" in printed
    assert printed.split()[-2:] == ["1", "1"]


@needs_pw
def test_stress_is_the_slope_of_energy_over_volume(tmp_path, upfs):
    """P = -dE/dV by a central difference of +-1 % in volume; LiF compressed to 3.80 A: P is clearly positive.

    The basis changes with the volume at a fixed cutoff (Pulay), which the printed stress leaves out: measured
    at 90 Ry, 20.11 GPa printed and 20.15 by difference. A wrong sign would be 40 GPa away.
    """
    settings = replace(SETTINGS, wavefunction_cutoff_Ry=90.0, density_cutoff_Ry=360.0)
    lif = ase.build.bulk("LiF", "rocksalt", a=3.80)
    results = {}
    for change in (-0.01, 0.0, 0.01):
        cell = lif.copy()
        cell.set_cell(lif.cell * (1 + change) ** (1 / 3), scale_atoms=True)
        job = tmp_path / f"{change}"
        espresso.write_job(job, cell, settings, upfs)
        results[change] = espresso.run(job / "pw.in", job / "pw.out")
        assert results[change].converged
    printed = -np.trace(results[0.0].stress_eV_per_A3) / 3 * GPA_PER_EV_PER_A3
    rise = results[0.01].energy_eV - results[-0.01].energy_eV
    expected = -rise / (0.02 * lif.get_volume()) * GPA_PER_EV_PER_A3

    assert printed == pytest.approx(expected, abs=0.2)


@needs_pw
def test_forces_are_slopes_of_the_free_energy(tmp_path, lif, upfs):
    """Central difference of +-0.01 A; measured 0.758 and 0.762 eV/A (egg-box of the grid at 40 Ry)."""
    lif.positions[0, 0] += 0.3
    energies = []
    for index, step in enumerate((-0.01, 0.01, 0.0)):
        moved = lif.copy()
        moved.positions[0, 0] += step
        job = tmp_path / f"{index}"
        espresso.write_job(job, moved, SETTINGS, upfs)
        result = espresso.run(job / "pw.in", job / "pw.out")
        energies.append(result.energy_eV)
    expected = -(energies[1] - energies[0]) / 0.02
    assert result.forces_eV_per_A[0, 0] == pytest.approx(expected, abs=0.01)


def test_a_convergence_study_goes_from_coarse_to_dense():
    runs = convergence.plan(SETTINGS, cutoffs_Ry=[60, 30], meshes=["2x2x2+111", "2x2x2", "1x1x1", "3x3x3"])
    cutoffs = [(run.wavefunction_cutoff_Ry, run.density_cutoff_Ry) for kind, run in runs if kind == "cutoff"]
    meshes = [(run.kpoints[0], run.kpoints_shift[0]) for kind, run in runs if kind == "kpoints"]
    assert cutoffs == [(30, 120), (60, 240)]
    assert meshes == [(1, 0), (2, 0), (2, 1), (3, 0)]
    with pytest.raises(InputError, match="2x2x2"):
        convergence.parse_mesh("2,2,2")
