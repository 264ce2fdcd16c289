"""The sample of a pre-training set: even, the same in any order of the files, honest about what it left out, small."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from label_files import labelled_frames, write_extxyz, write_mptrj
from scipy import stats
from small import label, rocksalt_lif

from hopline import frames
from hopline.console import InputError
from hopline.finetuning import replay_pool
from hopline.finetuning.replay_pool import CORRECTED_ENERGY, Elements
from hopline.labels.candidates import Candidate
from hopline.labels.ingest import Limits

LIMITS = Limits(0.5, 50.0, float("inf"), require_stress=True)


def gathered(*sources, most=10**6, seed=1, **changes):
    """Gather under the usual settings, some of them changed."""
    settings = {"file_format": "auto", "elements": Elements(), "limits": LIMITS, "max_rejected_fraction": 0.2}
    return replay_pool.gather(sources, most=most, seed=seed, **settings | changes)


def ids(pool):
    return [atoms.info["frame_id"] for atoms in pool.frames]


def labelled(atoms, **info):
    """Label a frame with everything, stress included."""
    return label(atoms, stress=np.zeros(9), **info)


def written(path, made):
    frames.write_frames(path, made)
    return path


@pytest.fixture
def shaken_lif():
    return [labelled(rocksalt_lif(seed=seed), energy_eV=-40.0 - seed) for seed in range(40)]


def test_places_are_even():
    """Chi-square over how often each of 200 frames is among the first 50; false alarms: one in a thousand."""
    n_frames, n_taken, n_seeds = 200, 50, 2000
    identities = [f"{number:016x}" for number in range(n_frames)]
    taken = np.zeros(n_frames)
    for seed in range(n_seeds):
        places = [replay_pool.place(identity, seed) for identity in identities]
        taken[np.argsort(places)[:n_taken]] += 1
    share = n_taken / n_frames
    # a fixed number is taken each time, so counts repel each other: Pearson's sum over its variance, n - 1 freedoms
    scatter = ((taken - n_seeds * share) ** 2).sum() / (n_seeds * share * (1 - share))
    alarm = stats.chi2(n_frames - 1).cdf(scatter * (n_frames - 1) / n_frames)
    assert 0.0005 < alarm < 0.9995


def test_the_sample_is_the_frames_of_the_lowest_places_in_their_order(tmp_path, shaken_lif):
    pool = gathered(written(tmp_path / "a.extxyz", shaken_lif), most=15, seed=7)
    every = sorted(
        (frames.frame_id(atoms) for atoms in shaken_lif), key=lambda one: replay_pool.place(one, 7)
    )
    assert ids(pool) == every[:15]
    assert (pool.found, pool.fit) == (40, 40)


def test_the_same_picks_whatever_the_order_of_files_and_frames(tmp_path, shaken_lif):
    one = written(tmp_path / "one.extxyz", shaken_lif)
    mixed = [shaken_lif[row] for row in np.random.default_rng(3).permutation(40)]
    first, second = (
        written(tmp_path / name, part) for name, part in (("b.extxyz", mixed[:13]), ("a.extxyz", mixed[13:]))
    )
    picks = ids(gathered(one, most=15))
    assert ids(gathered(first, second, most=15)) == picks
    assert ids(gathered(second, first, most=15)) == picks
    assert ids(gathered(one, most=15, seed=2)) != picks


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(tmp_path, shaken_lif):
    path = written(tmp_path / "a.extxyz", shaken_lif)
    assert ids(gathered(path, most=10)) == ids(gathered(path, most=30))[:10]


@pytest.mark.parametrize("swap", [False, True])
def test_of_one_structure_with_two_energies_the_lower_stays(tmp_path, shaken_lif, swap):
    twin = labelled(shaken_lif[0].copy(), energy_eV=-99.0, source="other")
    made = [twin, *shaken_lif] if swap else [*shaken_lif, twin]
    pool = gathered(written(tmp_path / "a.extxyz", made))
    assert len(pool.frames) == 40
    (kept,) = [atoms for atoms in pool.frames if atoms.info["frame_id"] == frames.frame_id(twin)]
    assert kept.info["REF_energy"] == -99.0


def of(formula):
    """Return a frame of a formula, its atoms 1.5 A apart along a line."""
    atoms = Atoms(formula, pbc=True)
    atoms.positions[:, 0] = 1.5 * np.arange(len(atoms))
    atoms.set_cell([1.5 * len(atoms), 3.0, 3.0])
    return atoms


@pytest.mark.parametrize(
    ("elements", "taken"),
    [
        (Elements(), {"LiF", "NaCl", "LiNaFCl", "Mg"}),
        (Elements(only=("Li", "F", "Mg")), {"LiF", "Mg"}),
        (Elements(any_of=("Li", "Mg")), {"LiF", "LiNaFCl", "Mg"}),
        (Elements(without=("Cl",)), {"LiF", "Mg"}),
        (Elements(only=("Li", "F", "Na", "Cl"), any_of=("F",), without=("Na",)), {"LiF"}),
    ],
)
def test_frames_are_taken_by_their_elements(tmp_path, elements, taken):
    formulas = ("LiF", "NaCl", "LiNaFCl", "Mg")
    path = written(
        tmp_path / "a.extxyz", [labelled(of(formula), composition=formula) for formula in formulas]
    )
    pool = gathered(path, elements=elements)
    assert {atoms.info["composition"] for atoms in pool.frames} == taken
    assert (pool.found, pool.other_elements, pool.fit) == (4, 4 - len(taken), len(taken))


def test_a_filter_that_nothing_passes_is_refused(tmp_path, shaken_lif):
    path = written(tmp_path / "a.extxyz", shaken_lif)
    with pytest.raises(InputError, match=r"none of the 40 frames of .* passes the filter of elements"):
        gathered(path, elements=Elements(any_of=("Mg",)))


def spoilt_set(shaken_lif):
    """Return twenty frames, three of them spoilt in two ways."""
    made = shaken_lif[:20]
    for row, force in ((3, 60.0), (5, 70.5)):
        made[row].arrays["REF_forces"][2, 0] = force
    del made[8].info["REF_stress"]
    return made


def test_rejected_frames_are_counted_by_reason(tmp_path, shaken_lif):
    path = written(tmp_path / "a.extxyz", spoilt_set(shaken_lif))
    pool = gathered(path)
    counts = {kind.reason: kind.frames for kind in pool.rejected}
    assert counts == {"force of ... eV/A on an atom is above ... eV/A": 2, "no stress": 1}
    assert pool.rejected[0].example == f"{path} frame 3: force of 60.00 eV/A on Li 2 is above 50 eV/A"
    assert (pool.found, pool.fit, len(pool.frames)) == (20, 17, 17)


def test_frames_without_stress_are_taken_where_that_is_wanted(tmp_path, shaken_lif):
    path = written(tmp_path / "a.extxyz", spoilt_set(shaken_lif))
    pool = gathered(path, limits=replace(LIMITS, require_stress=False))
    assert sum("REF_stress" not in atoms.info for atoms in pool.frames) == 1


def test_too_many_rejected_frames_are_refused_with_the_reasons(tmp_path, shaken_lif):
    path = written(tmp_path / "a.extxyz", spoilt_set(shaken_lif))
    with pytest.raises(
        InputError, match=r"3 of 20 frames were rejected, more than the 10% .*: 2 times force of"
    ):
        gathered(path, max_rejected_fraction=0.1)


def test_of_reasons_without_end_a_hundred_are_told_apart():
    refused = replay_pool._Refused()
    for number in range(150):
        refused.add(Candidate("a", number), f"broken: {'x' * number}")
    assert len(refused) == 150
    counts = {kind.reason: kind.frames for kind in refused.kinds()}
    assert len(counts) == 101
    assert counts[replay_pool.OTHER] == 50


def test_frames_that_do_not_say_get_the_defaults(tmp_path):
    path = write_mptrj(tmp_path, labelled_frames(3), tmp_path)
    stated = gathered(path, defaults={"level_of_theory": "mine", "energy_kind": "free"}).frames[0].info
    assert stated["level_of_theory"] == "PBE VASP; MPtrj (Materials Project, GGA or GGA+U)"
    assert (stated["energy_kind"], stated["system"]) == ("free", "replay")


def test_both_energies_come_from_mptrj_and_survive_extended_xyz(tmp_path):
    made = labelled_frames(6)
    pool = gathered(write_mptrj(tmp_path, made, tmp_path))
    again = gathered(written(tmp_path / "again.extxyz", pool.frames))
    energies = {frames.frame_id(atoms): atoms.get_potential_energy() for atoms in made}
    for found in (pool, again):
        assert len(found.frames) == 6
        for atoms in found.frames:
            dft = energies[frames.frame_id(atoms)]
            assert atoms.info["REF_energy"] == pytest.approx(dft, abs=1e-7)
            # what write_mptrj corrects by
            assert atoms.info[CORRECTED_ENERGY] == pytest.approx(dft - 1.0, abs=1e-7)


def test_both_energies_of_a_real_sample(shared_data):
    path = shared_data / "mptrj" / "replay_100.xyz"
    # a relaxation from X-ray positions of hydrogen begins with 197 eV/A
    pool = gathered(path, limits=replace(LIMITS, max_force_eV_per_A=200.0))
    raw = {frames.frame_id(atoms): atoms for atoms in ase.io.read(path, ":")}
    assert len(pool.frames) == 100
    for atoms in pool.frames:
        info = raw[atoms.info["frame_id"]].info
        assert atoms.info["REF_energy"] == info["REF_energy"]
        assert atoms.info[CORRECTED_ENERGY] == info["corrected_total_REF_energy"]
        assert atoms.info["source"] == info["mp_id"]


def test_a_set_with_one_energy_has_one(tmp_path):
    pool = gathered(write_extxyz(tmp_path, labelled_frames(3), tmp_path))
    assert not any(CORRECTED_ENERGY in atoms.info for atoms in pool.frames)


def test_a_corrected_energy_that_is_no_number_is_none(tmp_path, shaken_lif):
    for atoms in shaken_lif:
        atoms.info[CORRECTED_ENERGY] = float("nan")
    pool = gathered(written(tmp_path / "a.extxyz", shaken_lif))
    assert not any(CORRECTED_ENERGY in atoms.info for atoms in pool.frames)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_half_a_download_is_refused(tmp_path, share, pack):
    path = write_mptrj(tmp_path, labelled_frames(10), tmp_path)
    content = pack(path.read_bytes())
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        InputError, match=r"cannot be read to its end, only [0-9] frames .cut off: .* fetch or copy it again"
    ):
        gathered(path, file_format="mptrj")


def test_one_file_of_several_that_is_cut_off_is_refused(tmp_path, shaken_lif):
    for name in "abc":
        written(tmp_path / f"{name}.extxyz", shaken_lif)
    text = (tmp_path / "b.extxyz").read_text()
    (tmp_path / "b.extxyz").write_text(text[: len(text) // 2 - 100])
    with pytest.raises(InputError, match=r"b\.extxyz cannot be read to its end, only 19 frames"):
        gathered(tmp_path)


def gas(distance_A):
    """Return one atom of argon, that far from its images, as a candidate."""
    atoms = Atoms("Ar", cell=np.eye(3) * distance_A, pbc=True)
    return Candidate("a", 0, atoms, energy_eV=0.0, forces_eV_per_A=np.zeros((1, 3)), stress=np.zeros(9))


def test_an_atom_is_lonely_where_chgnet_says_so():
    from hopline.potentials import chgnet

    model = chgnet.load_shipped("0.3.0")
    pair = replace(
        gas(20.0), atoms=Atoms("Ar2", positions=[[0, 0, 0], [5, 0, 0]], cell=np.eye(3) * 20, pbc=True)
    )
    third = replace(pair, atoms=pair.atoms + Atoms("He", positions=[[0, 0, 10]]))
    for candidate, lonely in ((gas(5.9), False), (gas(6.1), True), (pair, False), (third, True)):
        assert bool(replay_pool._lonely(candidate)) == lonely
        if lonely:
            with pytest.raises(InputError):
                chgnet.graph_of(model, candidate.atoms)
        else:
            chgnet.graph_of(model, candidate.atoms)


MEASURED = """
import sys
from hopline.finetuning import replay_pool
from hopline.labels.ingest import Limits
from memory import peak_memory_kB
pool = replay_pool.gather(
    sys.argv[1:], file_format="mptrj", elements=replay_pool.Elements(), limits=Limits(0.5, 50.0, 9.0), most=100, seed=1,
    max_rejected_fraction=0.0,
)
print(pool.fit, peak_memory_kB())
"""


def write_large(path, folder, n_frames):
    """Write an MPtrj of one frame of 64 atoms again and again, its cell a little larger each time."""
    atoms = rocksalt_lif((2, 2, 2))
    atoms.calc = SinglePointCalculator(
        atoms, energy=-300.0, forces=np.ones((64, 3)) / 3, stress=np.ones(6) / 300
    )
    content = json.loads(write_mptrj(folder, [atoms], folder).read_text())["mp-0"]["mp-0-0-0"]
    content["structure"]["lattice"]["matrix"][0][0] = "HERE"
    before, after = json.dumps(content).split('"HERE"')
    with path.open("w") as file:
        for number in range(n_frames):
            file.write(
                f'{"," if number else "{"}"mp-{number}": {{"mp-{number}-0-0": {before}{8 + 1e-5 * number}{after}}}'
            )
        file.write("}")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, repository):
    """A hundred megabytes take no more memory than ten: less than a tenth of what is read in addition."""
    environment = {"PYTHONPATH": f"{repository / 'scripts'}:{repository / 'tests'}", "OMP_NUM_THREADS": "1"}
    peaks_kB = {}
    for n_frames in (600, 6000):
        path = tmp_path / f"{n_frames}.json"
        write_large(path, tmp_path, n_frames)
        command = [sys.executable, "-c", MEASURED, str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        found, peaks_kB[n_frames] = map(int, said.split())
        assert found == n_frames
    assert path.stat().st_size > 100e6
    assert peaks_kB[6000] < peaks_kB[600] + 10_000
    assert peaks_kB[6000] < 300_000
