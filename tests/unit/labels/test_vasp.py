"""VASP inputs of single points: presets against what is published, and frames that come back as they went in."""

import os
import subprocess

import ase.build
import ase.io
import numpy as np
import pytest
import vasp_standin
from ase import Atoms
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar
from pymatgen.io.vasp.sets import MatPESStaticSet, MPStaticSet

from hopline import frames
from hopline.console import InputError
from hopline.labels import vasp
from hopline.labels.readers import vasprun

SINGLE_POINT = {"NSW": 0, "IBRION": -1, "ISIF": 2, "ISYM": 0, "LWAVE": False, "LCHARG": True, "LREAL": False}
PUBLISHED = {
    # pymatgen's MPStaticSet; with Gaussian smearing for forces in metals, and a convergence fit for forces
    "mp-static": {
        "ENCUT": 520, "ISMEAR": 0, "SIGMA": 0.05, "ISPIN": 2, "PREC": "Accurate", "LASPH": True, "EDIFF": 1e-6,
    },
    # Kaplan et al. 2025 as pymatgen's MatPESStaticSet has it
    "matpes-pbe": {
        "ENCUT": 680, "ISMEAR": 0, "SIGMA": 0.05, "KSPACING": 0.22, "ISPIN": 2, "PREC": "Accurate", "LASPH": True,
        "EDIFF": 1e-5, "LMAXMIX": 6,
    },
    # Angeletti et al. 2025
    "mg-h": {"ENCUT": 600, "ISMEAR": 0, "SIGMA": 0.05},
}  # fmt: skip
MESHES = {"mp-static": (3, 3, 2), "matpes-pbe": None, "mg-h": (4, 4, 4)}
"""Of Mg36H in 9.6 x 9.6 x 10.4 A: 100 points per 1/A^3 of the reciprocal cell give 3 x 3 x 2."""


def magnesium_hydrogen(seed=0):
    atoms = ase.build.bulk("Mg", "hcp", a=3.2, c=5.2).repeat((3, 3, 2))
    atoms.append("H")
    atoms.positions[-1] = atoms.cell.sum(axis=0) * 0.31
    atoms.rattle(0.05, seed=seed)
    atoms.info |= {
        "system": "mg-h",
        "composition": "H1",
        "source": "a.h5",
        "temperature_K": 673,
        "energy": -1.0,
    }
    return atoms


@pytest.fixture
def preset(repository):
    return lambda name, *tags: vasp.with_tags(
        vasp.read_preset(repository / "resources" / "presets" / "vasp.yaml", name), tags
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_what_is_published(tmp_path, preset, name):
    vasp.write_jobs(tmp_path, [magnesium_hydrogen()], preset(name))
    incar = Incar.from_file(tmp_path / "0000" / "INCAR")
    expected = {**PUBLISHED[name], **SINGLE_POINT}
    assert {tag: incar[tag] for tag in expected} == expected
    assert incar["GGA"].upper() == "PE"
    kpoints = tmp_path / "0000" / "KPOINTS"
    if MESHES[name] is None:
        assert not kpoints.exists()
    else:
        assert Kpoints.from_file(kpoints).kpts[0] == MESHES[name]
        assert Kpoints.from_file(kpoints).style == Kpoints.supported_modes.Gamma
    assert {path.name for path in (tmp_path / "0000").iterdir()} <= {
        "INCAR", "KPOINTS", "POSCAR", "POTCAR.spec", "frame.extxyz",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "peer"), [("mp-static", MPStaticSet), ("matpes-pbe", MatPESStaticSet)])
def test_sets_are_pymatgens_but_for_what_the_preset_says(preset, name, peer):
    job = vasp.inputs_of(magnesium_hydrogen(), preset(name))
    theirs = peer(Poscar.from_str(job.poscar).structure, sort_structure=False)
    given = {**preset(name).incar, **vasp.SINGLE_POINT}
    ours = {tag: value for tag, value in job.incar.items() if tag not in given}
    assert ours == {tag: value for tag, value in theirs.incar.items() if tag not in given}
    assert list(job.symbols) == theirs.potcar_symbols == ["H", "Mg_pv"]
    assert preset(name).potcar_release == theirs.potcar_functional
    assert str(job.kpoints) == str(theirs.kpoints)


@pytest.mark.parametrize("symbols", ["MgH", "TiH", "LiF"])
@pytest.mark.parametrize("name", ["mp-static", "matpes-pbe"])
def test_these_elements_get_no_hubbard_u_and_one_small_moment(preset, name, symbols):
    atoms = Atoms(symbols, positions=[[0, 0, 0], [1.8, 1.8, 1.8]], cell=[3.6] * 3, pbc=True)
    incar = vasp.inputs_of(atoms, preset(name)).incar
    assert not [tag for tag in incar if tag.startswith("LDAU")]
    assert incar["MAGMOM"] == [0.6, 0.6]


def test_the_frame_comes_back_from_its_poscar_in_its_order(tmp_path, preset):
    atoms = ase.build.bulk("LiF", "rocksalt", a=4.08, cubic=True).repeat((1, 1, 2))
    atoms.rattle(0.1, seed=3)
    atoms.positions[0] -= 20.0  # outside the cell, as after diffusion
    vasp.write_jobs(tmp_path, [atoms], preset("matpes-pbe"))
    poscar = ase.io.read(tmp_path / "0000" / "POSCAR", format="vasp")
    (frame,) = frames.read_frames(tmp_path / "0000" / "frame.extxyz")
    assert str(poscar.symbols) == str(frame.symbols) == "F8Li8"
    np.testing.assert_allclose(poscar.positions, frame.positions, atol=1e-8, rtol=0)
    np.testing.assert_allclose(poscar.cell.array, atoms.cell.array, atol=1e-8, rtol=0)
    for element in ("Li", "F"):  # each element's atoms keep their order
        chosen = atoms.positions[atoms.symbols == element]
        np.testing.assert_allclose(frame.positions[frame.symbols == element], chosen, atol=1e-8, rtol=0)
    assert (tmp_path / "0000" / "POTCAR.spec").read_text().split() == ["F", "Li_sv"]


def test_a_left_handed_cell_becomes_the_same_lattice_right_handed(tmp_path, preset):
    atoms = magnesium_hydrogen()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    vasp.write_jobs(tmp_path, [atoms], preset("matpes-pbe"))
    poscar = ase.io.read(tmp_path / "0000" / "POSCAR", format="vasp")
    (frame,) = frames.read_frames(tmp_path / "0000" / "frame.extxyz")
    assert np.linalg.det(poscar.cell.array) > 0
    np.testing.assert_allclose(poscar.cell.array, frame.cell.array, atol=1e-8)
    np.testing.assert_allclose(poscar.positions, frame.positions, atol=1e-8)
    np.testing.assert_allclose(
        sorted(frame.get_all_distances(mic=True)[0]), sorted(atoms.get_all_distances(mic=True)[-1])
    )


def test_a_perfect_crystal_and_its_frames_share_one_mesh_and_one_level(tmp_path, preset):
    crystal = ase.build.bulk("LiF", "rocksalt", a=4.08, cubic=True).repeat((2, 2, 2))
    shaken = crystal.copy()
    shaken.rattle(0.1, seed=0)
    vasp.write_jobs(tmp_path, [crystal, shaken, crystal.repeat((1, 1, 2))], preset("mp-static"))
    first, second = ((tmp_path / index / "KPOINTS").read_text() for index in ("0000", "0001"))
    assert first == second
    levels = {frames.read_frames(path)[0].info["level_of_theory"] for path in tmp_path.glob("*/frame.extxyz")}
    assert len(levels) == 1


def test_a_job_keeps_where_its_frame_came_from(tmp_path, preset):
    level = vasp.write_jobs(tmp_path, [magnesium_hydrogen()], preset("mg-h"), defaults={"system": "other"})
    (frame,) = frames.read_frames(tmp_path / "0000" / "frame.extxyz")
    info = {
        key: frame.info[key]
        for key in ("system", "composition", "source", "temperature_K", "level_of_theory")
    }
    assert info == {
        "system": "mg-h", "composition": "H1", "source": "a.h5", "temperature_K": 673,
        "level_of_theory": "PBE VASP; 600 eV; k 4x4x4 Gamma; gaussian 0.05 eV; PREC accurate; H H; Mg Mg",
    }  # fmt: skip
    assert level == frame.info["level_of_theory"]
    assert "energy" not in frame.info
    assert frame.info["frame_id"] == frames.frame_id(frame)


def test_the_level_begins_as_the_one_read_from_a_real_run_of_these_settings(shared_data):
    (candidate,) = vasprun.read(shared_data / "dft_outputs" / "vasp" / "Ti-O-Ti-v6.vasprun.xml")
    job = vasp.inputs_of(vasp_standin.real_frame(shared_data), vasp_standin.PRESET)
    assert job.theory == candidate.level_of_theory


def test_the_level_changes_with_all_that_matters_and_with_nothing_else(tmp_path, preset):
    def level(*tags):
        return vasp.write_jobs(tmp_path, [magnesium_hydrogen()], preset("mg-h", *tags))

    changes = (
        "ENCUT=500",
        "ISMEAR=1",
        "SIGMA=0.1",
        "ISPIN=2",
        "GGA=PS",
        "IVDW=12",
        "KSPACING=0.2",
        "METAGGA=R2SCAN",
    )
    assert len({level(), *map(level, changes)}) == len(changes) + 1
    assert level("NELM=60", "ALGO=Fast", "NCORE=4") == level()


def test_the_content_of_potcars_enters_the_level(tmp_path, shared_data):
    frame = vasp_standin.real_frame(shared_data)
    hashes = vasp_standin.potcar_folder(tmp_path / "potcars")
    preset = vasp.Preset(
        vasp_standin.PRESET.input_set, vasp_standin.PRESET.incar, None, {"Ti": "Ti", "O": "O"}, None, hashes
    )
    level = vasp.write_jobs(tmp_path / "runs", [frame], preset, potcar_folder=tmp_path / "potcars")
    assert level.endswith(f"; O O {hashes['O'][:8]}; Ti Ti {hashes['Ti'][:8]}")
    (tmp_path / "potcars" / "O" / "POTCAR").write_bytes(
        vasp_standin.potcar("PAW_PBE O 08Apr2002", numbers="1.0")
    )
    with pytest.raises(InputError, match="is not the POTCAR of O that is needed"):
        vasp.write_jobs(tmp_path / "runs", [frame], preset, potcar_folder=tmp_path / "potcars")
    assert not list((tmp_path / "runs").rglob("POTCAR"))


def test_a_hubbard_u_that_depends_on_the_neighbours_makes_two_levels(tmp_path, preset):
    cobalt = Atoms("Co", cell=[2.5] * 3, pbc=True)
    fluoride = Atoms("CoF", positions=[[0, 0, 0], [2, 2, 2]], cell=[4] * 3, pbc=True)
    level = vasp.write_jobs(tmp_path, [fluoride], preset("mp-static"))
    assert "Co Co U 3.32 J 0 l 2 PBE" in level
    with pytest.raises(InputError, match="Co would be Co"):
        vasp.write_jobs(tmp_path, [cobalt, fluoride], preset("mp-static"))


def test_tags_of_the_user_win(preset):
    chosen = preset(
        "mg-h", "encut=700", "NCORE = 4", "NELM=null", "MAGMOM={Mg: 0.0, H: 1.0}", "LDAU=False", "ISPIN=2"
    )
    assert (chosen.incar["ENCUT"], chosen.incar["NCORE"], chosen.incar["NELM"]) == (700, 4, None)
    with pytest.raises(InputError, match="the preset gives no NELM"):
        vasp.inputs_of(magnesium_hydrogen(), chosen)
    incar = vasp.inputs_of(magnesium_hydrogen(), preset("mp-static", "MAGMOM={Mg: 0.1, H: 1.0}")).incar
    assert incar["MAGMOM"] == [1.0] + [0.1] * 36
    assert vasp.inputs_of(magnesium_hydrogen(), preset("mg-h", "KSPACING=0.3")).kpoints is None


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("ENCUTT=500", "ENCUTT is no INCAR tag; did you mean ENCUT"),
        ("ENCUT", "not TAG=VALUE"),
        ("ENCUT=", "not TAG=VALUE"),
        ("NSW=10", "not yours to set"),
        ("ICHARG=11", "not yours to set"),
        ("MAGMOM=5 5", "given by element"),
        ("SIGMA={", "cannot be read"),
    ],
)
def test_tags_that_make_no_label_are_refused(preset, tag, words):
    with pytest.raises(InputError, match=words):
        preset("mg-h", tag)


def test_presets_that_cannot_be_are_refused(tmp_path, preset):
    path = tmp_path / "presets.yaml"
    with pytest.raises(InputError, match="holds no preset mgh: mp-static, matpes-pbe, mg-h are there"):
        preset("mgh")
    for content, words in (
        ("a: {set: MPRelaxSet}", "set: MPRelaxSet"), ("a: {incarr: {}}", "incarr"), ("a: [", "not whole YAML"),
        ("3", "none"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(InputError, match=words):
            vasp.read_preset(path, "a")
    with pytest.raises(InputError, match="names no POTCAR of Ti"):
        vasp.inputs_of(Atoms("Ti", cell=[3] * 3, pbc=True), preset("mg-h"))
    with pytest.raises(InputError, match="without a three-dimensional cell"):
        vasp.inputs_of(Atoms("Mg"), preset("mg-h"))
    with pytest.raises(InputError, match="gives no k-points"):
        vasp.inputs_of(
            Atoms("Mg", cell=[3] * 3, pbc=True), vasp.Preset(None, preset("mg-h").incar, None, {"Mg": "Mg"})
        )


def test_the_script_runs_each_folder_once_and_goes_on_after_a_break(tmp_path, monkeypatch, shared_data):
    book = vasp_standin.install(
        tmp_path, monkeypatch, shared_data, "good|die:ZBRENT: fatal error in bracketing|good"
    )
    hashes = vasp_standin.potcar_folder(tmp_path / "potcars")
    preset = vasp.Preset(None, vasp_standin.PRESET.incar, None, {"Ti": "Ti", "O": "O"}, None, hashes)
    vasp.write_jobs(
        tmp_path / "runs",
        [vasp_standin.real_frame(shared_data)] * 2,
        preset,
        potcar_folder=tmp_path / "potcars",
    )
    script = tmp_path / "runs" / vasp.SCRIPT

    def run(**environment):
        return subprocess.run(
            [script], capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )  # fmt: skip

    ready = {"VASP_COMMAND": "vasp_std", "POTCAR_FOLDER": str(tmp_path / "potcars")}
    assert "what starts VASP" in run(POTCAR_FOLDER="potcars").stderr
    first = run(**ready)
    assert first.returncode == 1
    assert "0001: VASP ended with an error" in first.stderr
    assert "1 folders without a finished" in first.stdout
    assert len(vasp_standin.starts(book)) == 2
    second = run(**ready)
    assert second.returncode == 0, second.stderr
    assert len(vasp_standin.starts(book)) == 3
    assert len(list(vasprun.read(tmp_path / "runs" / "0001" / "vasprun.xml"))) == 1
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name in {"POTCAR", "CHGCAR"}]
    (tmp_path / "potcars" / "O" / "POTCAR").write_bytes(b"another")
    assert run(**ready).returncode == 2
