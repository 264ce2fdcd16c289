"""pw.x runs that are killed, stopped or given up, or find a broken density: they end at the same answer."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import ase.build
import pytest

from hopline import stopping
from hopline.console import InputError
from hopline.labels import espresso, espresso_run, processes
from hopline.labels.espresso_output import parse_output
from hopline.labels.espresso_run import Launch, Stopped
from hopline.labels.pseudopotentials import find_pseudopotentials

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
SCF_NOISE_EV = 1e-7
"""Two ways to one self-consistent density at 1e-9 Ry: measured below 1e-8 eV."""
MINIMAL = "&CONTROL\n/\n&SYSTEM\n/\n&ELECTRONS\n/\nK_POINTS gamma\n"
GOES_ON = "starts from the charge density"


@pytest.fixture(scope="module")
def slow_input(shared_data):
    """LiF of eight atoms whose density is mixed so carefully that it takes some two seconds."""
    upfs = find_pseudopotentials(shared_data / "upf", ["Li", "F"])
    crystal = ase.build.bulk("LiF", "rocksalt", a=4.08, cubic=True)
    crystal.rattle(0.05, seed=0)
    settings = espresso.EspressoSettings(
        functional="PBE", wavefunction_cutoff_Ry=30, density_cutoff_Ry=120, kpoints=(1, 1, 1), kpoints_shift=(0, 0, 0),
        smearing="gaussian", smearing_width_Ry=0.005, scf_threshold_Ry=1e-9, mixing_beta=0.05, max_scf_steps=80,
    )  # fmt: skip
    return espresso.write_input(crystal, settings, upfs)


@pytest.fixture(scope="module")
def unbroken(slow_input, tmp_path_factory):
    result = espresso_run.run(slow_input, tmp_path_factory.mktemp("unbroken"), launch=Launch())
    assert result.converged
    return result


@pytest.fixture
def fake_pw(tmp_path, monkeypatch):
    """Put a script named pw.x first on PATH."""

    def make(body: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "pw.x").write_text(f"#!{sys.executable}\n{body}\n")
        (folder / "pw.x").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    return make


def density(folder):
    return folder / "scratch" / "hopline.save" / "charge-density.dat"


def stop_midway(text, folder, launcher=""):
    """Leave a run stopped at a whole charge density: SIGTERM comes when pw.x begins its third step."""

    def ask():
        wait_for(lambda: "iteration #  3" in said(folder / "running.out"))
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with (
        stopping.stoppable(),
        pytest.raises(Stopped, match="run the same command again to go on"),
    ):
        espresso_run.run(text, folder, launch=Launch(launcher))
    asking.join()
    assert density(folder).is_file()
    assert not (folder / "pw.out").exists()
    wait_for(lambda: not processes_in(folder))  # Open MPI's helper takes a moment


def said(path):
    return path.read_text(errors="replace") if path.is_file() else ""


def wait_for(holds, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_in(folder):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(process.name)
        except OSError:  # it has just ended
            continue
    return found


@needs_pw
def test_a_run_that_was_stopped_goes_on_to_the_same_energy(slow_input, unbroken, tmp_path, capsys):
    folder = tmp_path / "run"
    stop_midway(slow_input, folder)
    result = espresso_run.run(slow_input, folder, launch=Launch())
    assert GOES_ON in capsys.readouterr().err
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)
    assert abs(result.forces_eV_per_A - unbroken.forces_eV_per_A).max() < 1e-3
    assert result.scf_steps < unbroken.scf_steps
    assert not (folder / "scratch").exists()


@needs_pw
def test_after_kill_9_the_run_goes_on_from_its_last_checkpoint(
    slow_input, unbroken, tmp_path, repository, capsys
):
    folder = tmp_path / "run"
    (tmp_path / "text").write_text(slow_input)
    program = (
        "import sys; from pathlib import Path; from hopline.labels.espresso_run import Launch, run;"
        "run(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), launch=Launch(checkpoint_s=0.2))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "text"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
    )
    wait_for(lambda: density(folder).is_file() and "iteration #  2" in said(folder / "running.out"))
    child.kill()
    child.wait()
    # pw.x goes with it: two runs in one folder would spoil each other
    wait_for(lambda: not processes_in(folder))
    assert not (folder / "pw.out").exists()
    result = espresso_run.run(slow_input, folder, launch=Launch())
    assert GOES_ON in capsys.readouterr().err
    assert "The initial density is read from file" in (folder / "pw.out").read_text()
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)


@needs_pw
def test_checkpoints_do_not_change_the_answer(slow_input, unbroken, tmp_path):
    result = espresso_run.run(slow_input, tmp_path / "run", launch=Launch(checkpoint_s=0.2))
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)


@needs_pw
@pytest.mark.parametrize("damage", ["truncated", "nan"])
def test_a_damaged_density_is_thrown_away(slow_input, unbroken, tmp_path, capsys, damage):
    folder = tmp_path / "run"
    stop_midway(slow_input, folder)
    whole = density(folder).read_bytes()
    no_numbers = struct.pack("<d", float("nan")) * 10_000
    damaged = {"truncated": whole[: len(whole) // 2], "nan": whole[:-80_004] + no_numbers + whole[-4:]}
    density(folder).write_bytes(damaged[damage])
    result = espresso_run.run(slow_input, folder, launch=Launch())
    assert "thrown away: once more from scratch" in capsys.readouterr().err
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)


@needs_pw
def test_a_run_that_was_given_up_goes_on_when_it_is_given_more_time(slow_input, unbroken, tmp_path, capsys):
    folder = tmp_path / "run"
    stop_midway(slow_input, folder)
    given_up = espresso_run.run(slow_input, folder, launch=Launch(timeout_s=0.1))
    assert given_up.reason == "cut off: stopped at Hopline's timeout of 0.1 s"
    assert given_up.timed_out
    capsys.readouterr()
    result = espresso_run.run(slow_input, folder, launch=Launch(timeout_s=60))
    assert GOES_ON in capsys.readouterr().err
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)


@needs_pw
def test_another_input_starts_anew_and_the_same_is_not_run_again(slow_input, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    stop_midway(slow_input, folder)
    other = slow_input.replace("mixing_beta      = 0.05", "mixing_beta      = 0.7")
    assert other != slow_input
    result = espresso_run.run(other, folder, launch=Launch())
    assert "Initial potential from superposition of free atoms" in (folder / "pw.out").read_text()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert espresso_run.run(other, folder, launch=Launch()).energy_eV == result.energy_eV


@needs_pw
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
@pytest.mark.slow
def test_two_ranks_are_stopped_and_go_on_too(slow_input, unbroken, tmp_path, capsys):
    folder = tmp_path / "run"
    launcher = "mpirun --allow-run-as-root --oversubscribe -np 2"
    stop_midway(slow_input, folder, launcher)
    result = espresso_run.run(slow_input, folder, launch=Launch(launcher))
    assert GOES_ON in capsys.readouterr().err
    assert result.energy_eV == pytest.approx(unbroken.energy_eV, abs=SCF_NOISE_EV)


@needs_pw
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_no_space_for_the_output_is_refused_and_leaves_none(slow_input, tmp_path):
    """A file-size limit stops pw.x as it writes its density; Open MPI's own large file is kept out of the way."""
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"no space is left .*free some, then run this again"):
        espresso_run.run(slow_input, folder, launch=Launch("env PMIX_MCA_gds=hash prlimit --fsize=60000"))
    assert not (folder / "pw.out").exists()


def test_a_full_disk_in_words_of_the_system_is_refused(tmp_path, fake_pw):
    fake_pw("print('     Program PWSCF v.6.7 starts\\nforrtl: No space left on device'); raise SystemExit(1)")
    with pytest.raises(InputError, match="no space is left"):
        espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch())


def test_a_run_is_not_even_started_when_the_time_of_the_job_is_over(tmp_path, fake_pw):
    fake_pw("print('     Program PWSCF v.6.7 starts\\n   JOB DONE.')")
    with pytest.raises(Stopped):
        espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch(stop_at_s=time.monotonic()))
    assert espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch()).reason


def test_a_signal_stops_the_run_and_is_not_passed_on_to_pw(tmp_path, fake_pw):
    """The stand-in ends as pw.x does, when it finds its stop file; SIGTERM would have ended it without a word."""
    fake_pw(
        "import time; from pathlib import Path\n"
        "print('     Program PWSCF v.6.7 starts', flush=True)\n"
        "while not Path('scratch/hopline.EXIT').exists(): time.sleep(0.05)\n"
        "print('     Program stopped by user request\\n   JOB DONE.')"
    )
    program = (
        "import os, signal, threading; from pathlib import Path; from hopline import stopping; "
        "from hopline.labels import espresso_run\n"
        "threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "with stopping.stoppable():\n"
        f"    espresso_run.run({MINIMAL!r}, Path({str(tmp_path / 'run')!r}), launch=espresso_run.Launch())\n"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert "Stopped" in child.stderr.splitlines()[-1]
    assert "JOB DONE" in (tmp_path / "run" / "running.out").read_text()
    assert not (tmp_path / "run" / "pw.out").exists()


def test_signals_mean_what_they_meant_before_once_the_run_is_over():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stopping.stoppable():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_without_pw_the_user_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt install quantum-espresso"):
        espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch())
    with pytest.raises(InputError, match="launcher mpirun is not on PATH"):
        espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch("mpirun -np 2"))


def test_a_run_that_dies_without_a_word_gets_one_more_chance(tmp_path, fake_pw, capsys):
    fake_pw("print('     Program PWSCF v.6.7 starts'); raise SystemExit(3)")
    result = espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch())
    assert result.reason == "interrupted: the output ends without JOB DONE"
    assert "Program PWSCF" in (tmp_path / "run" / "pw.out").read_text()
    assert capsys.readouterr().err.count("ended without a word (status 3)") == 2


def test_a_run_that_names_its_error_gets_none(tmp_path, fake_pw, capsys):
    words = "     Error in routine cdiaghg (3):\\n     S matrix not positive"
    fake_pw(f"print('     Program PWSCF v.6.7 starts\\n{words}')")
    result = espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch())
    assert result.reason == "pw.x stopped with an error in cdiaghg: S matrix not positive"
    assert "without a word" not in capsys.readouterr().err


def test_a_run_that_does_not_stop_when_asked_is_ended(tmp_path, fake_pw, monkeypatch):
    monkeypatch.setattr(processes, "STOP_GRACE_S", 0.5)
    fake_pw("import time; print('     Program PWSCF v.6.7 starts', flush=True); time.sleep(60)")
    result = espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch(timeout_s=1.0))
    assert result.reason == "cut off: stopped at Hopline's timeout of 1 s"
    wait_for(lambda: not processes_in(tmp_path / "run"))


def test_a_launcher_that_starts_nothing_is_refused_and_leaves_no_output(tmp_path, fake_pw):
    fake_pw("print('There are not enough slots available')")
    with pytest.raises(InputError, match=r"did not start.*not enough slots"):
        espresso_run.run(MINIMAL, tmp_path / "run", launch=Launch())
    assert not (tmp_path / "run" / "pw.out").exists()


@pytest.mark.parametrize(
    ("kpoints", "expected"),
    [
        ("K_POINTS gamma", "[]"),
        ("K_POINTS automatic\n2 1 1 0 0 0", "[]"),
        ("K_POINTS automatic\n4 2 1 0 0 0", "-nk 3"),
    ],
)
def test_one_thread_and_no_more_pools_than_kpoints_reach_pw(tmp_path, fake_pw, kpoints, expected):
    fake_pw(
        "import os, sys\nprint('Program PWSCF', ' '.join(sys.argv[1:-2]) or [], os.environ['OMP_NUM_THREADS'],"
        " os.environ['OPENBLAS_NUM_THREADS'], '\\n JOB DONE.')"
    )
    text = MINIMAL.replace("K_POINTS gamma", kpoints)
    espresso_run.run(text, tmp_path / "run", launch=Launch(launcher="env A=1", pools=3))
    assert f"Program PWSCF {expected} 1 1" in (tmp_path / "run" / "pw.out").read_text()


def test_whatever_the_input_says_pw_keeps_its_files_where_they_are_looked_for(tmp_path, fake_pw):
    fake_pw("print('Program PWSCF', open('start.in').read(), 'JOB DONE.')")
    text = "&CONTROL\n outdir='/elsewhere', prefix='x'\n disk_io='none'\n/\n&SYSTEM\n/\n&ELECTRONS\n/\n"
    espresso_run.run(text, tmp_path / "run", launch=Launch())
    printed = (tmp_path / "run" / "pw.out").read_text()
    assert re.findall(r"(outdir|prefix|disk_io)\s*=\s*'([^']*)'", printed) == [
        ("outdir", "./scratch"), ("prefix", "hopline"), ("disk_io", "low"),
    ]  # fmt: skip
    assert parse_output(printed).reason
