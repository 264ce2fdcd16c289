"""MPtrj's JSON: made of real MPtrj frames by pymatgen, of a real VASP run as CHGNet does, and damaged."""

import bz2
import gzip
import json
import lzma
import random
import re
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from label_files import labelled_frames, same
from pymatgen.core import Structure
from pymatgen.io.vasp.outputs import Vasprun

from hopline import units
from hopline.frames import UNSTATED
from hopline.labels import text
from hopline.labels.candidates import SIGMA_TO_ZERO, Broken
from hopline.labels.readers import ase_database, mptrj

PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
SPOILT = {
    "empty": b"",
    "binary": random.Random(1).randbytes(5000),
    "UTF-16": '{"mp-1": {"mp-1-0-0": {"structure": "größer"}}}'.encode("utf-16") * 50,
    "nulls": bytes(5000),
    "a list": b"[1, 2, 3]",
    "a number": b"1",
    "nothing but brackets": b"[" * 100_000,
    "nothing but keys": b'{"a":' * 100_000,
}


def by_pymatgen(atoms):
    """Return a structure as pymatgen writes it."""
    return Structure(
        atoms.cell.array, list(atoms.symbols), atoms.positions, coords_are_cartesian=True
    ).as_dict()


def by_hand(atoms):
    """Return a structure in the form of pymatgen, which takes eight milliseconds for one."""
    sites = [
        {
            "species": [{"element": symbol, "occu": 1}],
            "abc": list(fractional),
            "properties": {},
            "label": symbol,
        }
        for symbol, fractional in zip(
            atoms.symbols, atoms.cell.scaled_positions(atoms.positions), strict=True
        )
    ]
    lattice = {"matrix": atoms.cell.array.tolist(), "pbc": [True] * 3}
    return {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice, "sites": sites}


def entry(atoms, structure=by_pymatgen):
    """Return one frame of MPtrj: labels as VASP gives them (kbar, positive where the crystal wants to expand)."""
    energy = atoms.get_potential_energy()
    return {
        "structure": structure(atoms),
        "uncorrected_total_energy": energy,
        "corrected_total_energy": energy - 1.5,
        "energy_per_atom": (energy - 1.5) / len(atoms),
        "ef_per_atom": 0.1,
        "e_per_atom_relaxed": -4.0,
        "ef_per_atom_relaxed": 0.1,
        "force": atoms.get_forces().tolist(),
        "stress": (-10 * units.GPA_PER_EV_PER_A3 * atoms.get_stress(voigt=False)).tolist(),
        "magmom": None,
        "bandgap": 0,
        "mp_id": "mp-1",
    }


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "ein Ordner mit Ümlauten"
    folder.mkdir()
    return folder / "MPtrj größer.json"


def written(path, entries):
    path.write_text(json.dumps({"mp-1": {f"mp-1-0-{row}": one for row, one in enumerate(entries)}}))
    return path


@pytest.fixture
def frames():
    return labelled_frames(5)


def read_as_far_as_possible(path):
    """Return what comes out of a file, and why it ends early ("" where it does not)."""
    found = []
    try:
        found.extend(mptrj.read(path))
    except Broken as error:
        return found, str(error)
    return found, ""


def test_a_thousand_frames_of_mptrj(path, shared_data):
    frames = ase.io.read(shared_data / "mptrj" / "mptrj-random-1k.xyz", ":")
    content = {}
    for atoms in frames:
        material, snapshot = atoms.info["mptrj_traj_id"], atoms.info["mptrj_snapshot_id"]
        content.setdefault(material, {})[snapshot] = entry(atoms, by_hand)
    path.write_text(json.dumps(content))
    assert mptrj.recognises(path.name, text.head(path))
    assert not ase_database.recognises(path.name, text.head(path))
    found = list(mptrj.read(path))
    assert [c.frame for c in found] == list(range(1000))
    written_order = [snapshot for material in content.values() for snapshot in material]
    by_snapshot = {atoms.info["mptrj_snapshot_id"]: atoms for atoms in frames}
    for candidate, snapshot in zip(found, written_order, strict=True):
        atoms = by_snapshot[snapshot]
        same(candidate, atoms)
        task = re.sub(r"-\d+-\d+$", "", snapshot)
        assert candidate.trajectory == f"{atoms.info['mptrj_traj_id']}/{task}"
        assert candidate.corrected_energy_eV == candidate.energy_eV - 1.5
        assert candidate.energy_kind == UNSTATED
        assert candidate.level_of_theory == "PBE VASP; MPtrj (Materials Project, GGA or GGA+U)"


@pytest.mark.parametrize("name", ["mptrj-random-1k.xyz", "replay_100.xyz"])
def test_the_raw_stresses_of_real_samples_are_kbar(shared_data, name):
    # two other people's conversions of MPtrj (ASE sign): undone, they are whole numbers of VASP's last digit
    for atoms in ase.io.read(shared_data / "mptrj" / name, ":100"):
        stress = atoms.info["REF_stress"] if "REF_stress" in atoms.info else atoms.get_stress(voigt=False)
        raw = -np.asarray(stress) * units.KBAR_PER_EV_PER_A3
        np.testing.assert_allclose(raw, np.round(raw, 8), rtol=0, atol=1e-11)


def vasp_run(shared_data, name):
    """Return a real run in the form of CHGNet's parse_vasp_dir, as pymatgen reads it, and as ASE reads it."""
    file = shared_data / "dft_outputs" / "vasp" / name
    run = Vasprun(file, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    columns = {
        "structure": [step["structure"].as_dict() for step in run.ionic_steps],
        "uncorrected_total_energy": [step["e_0_energy"] for step in run.ionic_steps],
        "energy_per_atom": [step["e_0_energy"] / len(step["structure"]) for step in run.ionic_steps],
        "force": [np.asarray(step["forces"]).tolist() for step in run.ionic_steps],
        "magmom": [],
        "stress": [np.asarray(step["stress"]).tolist() for step in run.ionic_steps],
    }
    return columns, ase.io.read(file, ":", format="vasp-xml")


@pytest.fixture(scope="module")
def vasp_5_run(shared_data):
    return vasp_run(shared_data, "vasprun.h2o.md.10.xml")


@pytest.fixture
def vasp_steps(vasp_5_run):
    """Ten steps with the energies that VASP 6 would have put there (water has no entropy term)."""
    columns, by_ase = vasp_5_run
    return columns | {"uncorrected_total_energy": [atoms.get_potential_energy() for atoms in by_ase]}, by_ase


def test_the_json_that_chgnet_makes_of_a_vasp_6_run(path, shared_data):
    columns, by_ase = vasp_run(shared_data, "Ti-O-Ti-v6.vasprun.xml")
    path.write_text(json.dumps(columns))
    assert mptrj.recognises(path.name, text.head(path))
    (found,) = mptrj.read(path)
    same(found, by_ase[0])
    assert found.energy_eV == pytest.approx(-57.47495449, abs=1e-8)
    assert (found.level_of_theory, found.energy_kind, found.trajectory) == (None, SIGMA_TO_ZERO, "")


def test_the_json_that_chgnet_makes_of_a_vasp_5_run_holds_no_energies(path, vasp_5_run):
    columns, by_ase = vasp_5_run
    assert max(map(abs, columns["uncorrected_total_energy"])) < 1e-6
    assert by_ase[0].get_potential_energy() == pytest.approx(-28.38622624)
    path.write_text(json.dumps(columns))
    reasons = {found.reason for found in mptrj.read(path)}
    assert reasons == {
        "its energy of -0.0000 eV is next to nothing: CHGNet misreads VASP 5, ingest the run's own output"
    }


def test_all_steps_of_a_vasp_run(path, vasp_steps):
    columns, by_ase = vasp_steps
    path.write_text(json.dumps(columns))
    for candidate, atoms in zip(mptrj.read(path), by_ase, strict=True):
        same(candidate, atoms)
        assert np.abs(candidate.stress).max() > 1e-4


def test_a_vasp_run_without_stress_and_with_arrays_as_chgnet_once_wrote_them(path, vasp_steps):
    columns, by_ase = vasp_steps
    arrays = [
        {"@module": "numpy", "@class": "array", "dtype": "float64", "data": f} for f in columns["force"]
    ]
    path.write_text(json.dumps({**columns, "force": arrays, "stress": None}))
    for candidate, atoms in zip(mptrj.read(path), by_ase, strict=True):
        np.testing.assert_allclose(candidate.forces_eV_per_A, atoms.get_forces(), rtol=0, atol=1e-8)
        assert candidate.stress is None


def test_lists_of_different_length_cannot_belong_together(path, vasp_steps):
    columns, _ = vasp_steps
    path.write_text(json.dumps({**columns, "force": columns["force"][:7]}))
    found, reason = read_as_far_as_possible(path)
    assert (len(found), reason) == (7, "its lists differ in length: force ends after 7 frames")


def test_a_vasp_run_that_was_cut_off(path, vasp_steps):
    columns, by_ase = vasp_steps
    content = json.dumps(columns).encode()
    for cut in random.Random(7).sample(range(60, len(content)), 50):
        path.write_bytes(content[:cut])
        found, reason = read_as_far_as_possible(path)
        assert reason, cut
        for candidate in found:
            same(candidate, by_ase[candidate.frame])


@pytest.mark.parametrize("packed", PACKERS)
def test_compressed_or_not(path, frames, packed):
    written(path, map(entry, frames))
    file = path.with_name(path.name + packed)
    file.write_bytes(PACKERS[packed](path.read_bytes()))
    assert mptrj.recognises(text.plain_name(file), text.head(file))
    for candidate, atoms in zip(mptrj.read(file), frames, strict=True):
        same(candidate, atoms)


@pytest.mark.parametrize("packed", PACKERS)
def test_wherever_it_is_cut_off_nothing_false_comes_through(path, frames, packed):
    written(path, map(entry, frames))
    file = path.with_name(path.name + packed)
    content = PACKERS[packed](path.read_bytes())
    for cut in random.Random(7).sample(range(len(content)), 50):
        file.write_bytes(content[:cut])
        found, reason = read_as_far_as_possible(file)
        assert reason, cut
        for candidate in found:
            same(candidate, frames[candidate.frame])


@pytest.mark.parametrize("content", SPOILT)
def test_spoilt_files(path, content):
    path.write_bytes(SPOILT[content])
    assert not mptrj.recognises(path.name, text.head(path)) or content == "nothing but keys"
    found, reason = read_as_far_as_possible(path)
    assert reason
    assert all(c.reason for c in found)


def test_corrected_energies_are_not_taken_for_the_dfts(path, frames):
    one = entry(frames[0])
    del one["uncorrected_total_energy"]
    (found,) = mptrj.read(written(path, [one]))
    assert found.energy_eV is None


def test_missing_labels_are_none(path, frames):
    one = entry(frames[0]) | {"force": None, "stress": None, "uncorrected_total_energy": None}
    del one["corrected_total_energy"]
    (found,) = mptrj.read(written(path, [one]))
    assert found.corrected_energy_eV is None
    assert (found.reason, found.energy_eV, found.forces_eV_per_A, found.stress) == ("", None, None, None)


def test_ids_of_other_forms_leave_the_material_as_the_trajectory(path, frames):
    path.write_text(json.dumps({"mine": {"frame one": entry(frames[0]), "mp-7-1-2": entry(frames[1])}}))
    assert [c.trajectory for c in mptrj.read(path)] == ["mine", "mine/mp-7"]


def test_atoms_outside_the_cell_and_oxidation_states(path):
    atoms = Atoms(
        "LiF", positions=[[-3.0, 0.1, 0.2], [2.0, 9.0, 4.0]], cell=[[4, 0, 0], [1, 4, 0], [0, 1, 5]], pbc=True
    )
    charged = Structure(atoms.cell.array, ["Li+", "F-"], atoms.positions, coords_are_cartesian=True)
    (found,) = mptrj.read(written(path, [{"structure": charged.as_dict()}]))
    assert str(found.atoms.symbols) == "LiF"
    np.testing.assert_allclose(
        found.atoms.positions, Structure.from_dict(charged.as_dict()).cart_coords, atol=1e-12
    )
    np.testing.assert_allclose(found.atoms.positions, atoms.positions, atol=1e-12)


def shared_site(one):
    one["structure"]["sites"][2]["species"] = [{"element": "Li", "occu": 0.5}, {"element": "Na", "occu": 0.5}]


def dummy(one):
    one["structure"]["sites"][2]["species"] = [{"element": "Xx", "occu": 1}]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (shared_site, "site 2 is shared or partly occupied"),
        (dummy, "site 2 holds 'Xx': that is no element"),
        (lambda one: one.pop("structure"), "no structure"),
        (lambda one: one.update(structure=7), "broken: TypeError"),
        (lambda one: one["structure"].pop("lattice"), "broken: KeyError: 'lattice'"),
        (lambda one: one["structure"]["lattice"].update(matrix=[1, 2]), "broken: ValueError"),
        (lambda one: one["structure"]["sites"][3].pop("abc"), "broken: KeyError: 'abc'"),
        (lambda one: one["structure"]["sites"][3].update(abc=[0.1]), "broken: ValueError"),
        (lambda one: one.update(stress=[1, 2, 3, 4, 5, 6]), "broken: ValueError"),
        (lambda one: one.update(force="none"), "broken: ValueError"),
        (lambda one: one.update(uncorrected_total_energy=[1, 2]), "broken: TypeError"),
    ],
)
def test_a_spoilt_frame_does_not_take_the_others_with_it(path, frames, spoil, reason):
    entries = [entry(atoms) for atoms in frames[:3]]
    spoil(entries[1])
    found = list(mptrj.read(written(path, entries)))
    assert [bool(c.reason) for c in found] == [False, True, False]
    assert found[1].reason.startswith(reason)


def test_values_where_frames_are_expected(path, frames):
    path.write_text(json.dumps({"version": 3, "mp-1": {"mp-1-0-0": entry(frames[0]), "note": "text"}}))
    assert [c.reason for c in mptrj.read(path)] == ["no structure", "", "no structure"]


def test_a_frame_that_is_no_number_ends_the_reading(path, frames):
    entries = [entry(atoms) for atoms in frames[:2]]
    entries[1]["uncorrected_total_energy"] = float("nan")
    found, reason = read_as_far_as_possible(written(path, entries))
    assert len(found) == 1
    assert reason == "the JSON is damaged: lexical error: invalid char in json text."


MEASURED = """
import sys
from pathlib import Path
from hopline.labels.candidates import Broken
from hopline.labels.readers import mptrj
from memory import peak_memory_kB
count = 0
try:
    for found in mptrj.read(Path(sys.argv[1])):
        count += not found.reason
except Broken as error:
    print(error)
print(count, peak_memory_kB())
"""


def measured(path, repository):
    """Read a file in a process of its own; return why it ended, how many good frames it held, the memory in kB."""
    environment = {"PYTHONPATH": f"{repository / 'scripts'}:{repository / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURED, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    *reason, last = said.splitlines()
    return " ".join(reason), *map(int, last.split())


def test_two_gigabytes_of_nothing_behind_and_inside(path, frames, repository):
    whole = written(path, map(entry, frames)).read_bytes()
    for content, good in ((whole, 5), (whole[: len(whole) // 2], 2)):
        path.write_bytes(content)
        with path.open("r+b") as file:
            file.truncate(2 << 30)
        reason, count, memory_kB = measured(path, repository)
        assert (reason.startswith("the JSON is damaged"), count) == (True, good)
        assert memory_kB < 300_000


def test_a_frame_without_end_takes_no_memory_without_end(path, repository):
    path.write_bytes(b'{"mp-1": {"mp-1-0-0": {"structure": [' + b"[0]," * 6_000_000)
    reason, _, memory_kB = measured(path, repository)
    assert reason == "'mp-1/mp-1-0-0' holds more than 2097152 values: that is no frame"
    assert memory_kB < 600_000
