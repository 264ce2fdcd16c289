"""Isolated atoms: their spin, their box, and a job that was killed between two of them."""

import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import vasp_standin
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from hopline.console import InputError, Stopped
from hopline.labels import espresso, espresso_run, isolated_atoms, vasp, vasp_run
from hopline.labels.espresso_run import Launch
from hopline.labels.pseudopotentials import find_pseudopotentials

needs_pw = pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
VALUES = {
    "functional": "PBE", "wavefunction_cutoff_Ry": 8.0, "density_cutoff_Ry": 32.0, "scf_threshold_Ry": 1e-5,
    "mixing_beta": 0.4, "max_scf_steps": 80,
}  # fmt: skip


@pytest.fixture
def upfs(shared_data):
    return find_pseudopotentials(shared_data / "upf", ["H", "Li", "F"])


def test_isolated_atoms_carry_their_spin(upfs):
    settings = isolated_atoms.settings_for(VALUES, "F", upfs)
    text = " ".join(espresso.write_input(isolated_atoms.box("F"), settings, upfs).split())
    for part in ("nspin = 2", "tot_magnetization = 1.0", "starting_magnetization(1) = 0.5", "K_POINTS gamma"):
        assert part in text
    assert len(set(isolated_atoms.BOX_A)) == 3
    with pytest.raises(InputError, match="not tabulated"):
        isolated_atoms.settings_for(VALUES, "U", upfs)


def test_recommended_cutoffs_of_an_atom_are_those_of_its_set(upfs):
    """Hydrogen alone would be content with 36 Ha; the set's fluorine needs 42."""
    recommended = {"wavefunction_cutoff_Ry": "recommended", "density_cutoff_Ry": "recommended"}
    assert isolated_atoms.settings_for(VALUES | recommended, "H", upfs).wavefunction_cutoff_Ry == 84


@needs_pw
@pytest.mark.slow
def test_an_atom_that_is_finished_is_not_run_again(upfs, tmp_path, monkeypatch, capsys):
    """A hydrogen atom: -1 Ry up to the functional and a soft basis. The second element's job dies."""
    first = isolated_atoms.references(["H"], VALUES, upfs, tmp_path, launch=Launch())
    assert first["energies_eV"]["H"] == pytest.approx(-13.6, abs=2.0)
    assert first["settings"]["H"]["total_magnetization"] == 1
    assert first["level_of_theory"]["H"].startswith(
        "PBE pw.x; 8/32 Ry; k 1x1x1+000; gaussian 0.001 Ry; magnetization 1"
    )
    output = tmp_path / "H" / "pw.out"
    printed = output.read_bytes()

    def fails(*_, **__):
        raise Stopped("killed")

    with monkeypatch.context() as patch:
        patch.setattr(espresso_run, "_start_and_watch", fails)
        with pytest.raises(Stopped):
            isolated_atoms.references(["H", "Li"], VALUES, upfs, tmp_path, launch=Launch())
    again = isolated_atoms.references(["H", "Li"], VALUES, upfs, tmp_path, launch=Launch())
    assert output.read_bytes() == printed
    assert again["energies_eV"]["H"] == first["energies_eV"]["H"]
    assert set(again["energies_eV"]) == {"H", "Li"}
    assert again["energy_kind"] == "free"
    # other settings are another atom
    other = isolated_atoms.references(
        ["H"], VALUES | {"wavefunction_cutoff_Ry": 7.0}, upfs, tmp_path, launch=Launch()
    )
    assert other["energies_eV"]["H"] > first["energies_eV"]["H"]
    capsys.readouterr()


@needs_pw
def test_another_pseudopotential_under_the_same_name_is_another_atom(upfs, tmp_path):
    own = tmp_path / "H.upf"
    own.write_bytes(Path(upfs["H"]).read_bytes())
    inputs = set()
    for content in (b"", b"\n"):
        own.write_bytes(Path(upfs["H"]).read_bytes() + content)
        with pytest.raises(InputError, match="gave no energy"):
            isolated_atoms.references(
                ["H"], VALUES | {"max_scf_steps": 1}, {"H": own}, tmp_path, launch=Launch()
            )
        inputs.add((tmp_path / "H" / "pw.in").read_text())
    assert len(inputs) == 2


@needs_pw
def test_an_atom_without_an_energy_is_refused(upfs, tmp_path):
    with pytest.raises(InputError, match="isolated H atom gave no energy: SCF not converged after 1 steps"):
        isolated_atoms.references(["H"], VALUES | {"max_scf_steps": 1}, upfs, tmp_path, launch=Launch())


@pytest.fixture
def vasp_atom(tmp_path, monkeypatch, shared_data):
    """The stand-in for VASP with a preset and POTCARs; its book, the preset, the folder of POTCARs."""
    hashes = vasp_standin.potcar_folder(tmp_path / "potcars")
    preset = vasp.Preset(incar=vasp_standin.PRESET.incar, potcars=vasp_standin.PRESET.potcars, sha256=hashes)
    return vasp_standin.install(tmp_path, monkeypatch, shared_data), preset, tmp_path / "potcars"


def of_one_atom(path):
    """Make the stand-in's vasprun.xml that of its first titanium atom, alone in the box, with an atom's settings."""
    tree = ET.parse(path)  # noqa: S314  our own file
    kinds = tree.find("atominfo/array[@name='atomtypes']/set")
    kinds[:] = [row for row in kinds if row[1].text.strip() == "Ti"][:1]
    kinds[0][0].text = "1"
    own = {"ISMEAR": "0", "SIGMA": "0.01", "ISPIN": "2", "NELECT": kinds[0][3].text}
    for entry in tree.iter("i"):
        entry.text = own.get(entry.get("name"), entry.text)
    rows = [tree.find("atominfo/array[@name='atoms']/set")]
    rows += [table for table in tree.iter("varray") if table.get("name") in {"positions", "forces"}]
    for table in rows:
        table[:] = [row for index, row in enumerate(table) if index == 2]  # after the two oxygen atoms
    rows[0][0][1].text = "1"
    for table in tree.iter("varray"):
        if table.get("name") == "basis":
            for row, axis in zip(table, np.diag(isolated_atoms.BOX_A), strict=True):
                row.text = " ".join(map(str, axis))
        if table.get("name") == "positions":
            table[0].text = "0.5 0.5 0.5"
    tree.write(path, encoding="ISO-8859-1", xml_declaration=True)


def test_an_atom_by_vasp_has_its_own_spin_and_box(tmp_path, vasp_atom):
    book, preset, potcars = vasp_atom
    of_one_atom(book / "vasprun.xml")
    content = isolated_atoms.vasp_references(
        ["Ti"], preset, potcars, tmp_path / "runs", launch=vasp_run.Launch()
    )
    assert content["energies_eV"] == {"Ti": pytest.approx(vasp_standin.ENERGY_EV)}
    assert content["energy_kind"] == "free"
    folder = tmp_path / "runs" / "Ti" / "inputs" / "0000"
    tags = Incar.from_file(folder / "INCAR")
    # two unpaired electrons in the 3d shell of titanium: Hund's rules
    assert (tags["ISPIN"], tags["NUPDOWN"], tags["MAGMOM"], tags["ISMEAR"]) == (2, 2, [2.0], 0)
    assert tags["ENCUT"] == preset.incar["ENCUT"]
    assert Kpoints.from_file(folder / "KPOINTS").kpts == [(1, 1, 1)]
    assert len(set(Poscar.from_file(folder / "POSCAR").structure.lattice.abc)) == 3
    isolated_atoms.vasp_references(["Ti"], preset, potcars, tmp_path / "runs", launch=vasp_run.Launch())
    assert len(vasp_standin.starts(book)) == 1


def test_an_output_of_something_else_is_no_atom(tmp_path, vasp_atom):
    _, preset, potcars = vasp_atom
    with pytest.raises(
        InputError, match="isolated Ti atom gave no energy: the output is of another structure"
    ):
        isolated_atoms.vasp_references(["Ti"], preset, potcars, tmp_path / "runs", launch=vasp_run.Launch())
