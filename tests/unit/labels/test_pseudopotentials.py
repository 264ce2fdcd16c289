"""Pseudopotential files: found by element, and the cutoffs that their makers recommend."""

import hashlib
import json
from pathlib import Path

import pytest

from hopline.console import InputError
from hopline.labels.pseudopotentials import find_pseudopotentials, recommended_cutoffs

DEBIAN = Path("/usr/share/espresso/pseudo")


def header(**attributes):
    inside = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<UPF version='2.0.1'>\n<PP_HEADER {inside}/>\n"


@pytest.mark.parametrize("name", ["Li.upf", "Li.UPF", "li_pbe_v1.4.F.UPF", "Li.pbe.UPF", "LI-x.upf"])
def test_pseudopotentials_are_found_by_their_element(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "Lu.upf").touch()
    assert find_pseudopotentials(tmp_path, ["Li"])["Li"].name == name


def test_missing_and_ambiguous_pseudopotentials_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no pseudopotential of F"):
        find_pseudopotentials(tmp_path, ["F"])
    (tmp_path / "F.upf").touch()
    (tmp_path / "F.pbe.UPF").touch()
    with pytest.raises(InputError, match=r"2 pseudopotentials of F \(F.pbe.UPF, F.upf\)"):
        find_pseudopotentials(tmp_path, ["F"])
    with pytest.raises(InputError, match="does not exist"):
        find_pseudopotentials(tmp_path / "nowhere", ["F"])


@pytest.mark.parametrize(
    ("elements", "wavefunction_Ry"), [(["Li"], 74), (["F"], 84), (["Li", "F"], 84), (["Mg", "H"], 84)]
)
def test_pseudodojo_recommends_in_hartree_beside_the_file(shared_data, elements, wavefunction_Ry):
    """Its Ecut: Li 37, F 42, Mg 42, H 36 Ha; rho_cutoff="15.09" in the header of Mg is a radius in bohr."""
    cutoffs = recommended_cutoffs(find_pseudopotentials(shared_data / "upf", elements))
    assert (cutoffs.wavefunction_Ry, cutoffs.density_Ry) == (wavefunction_Ry, 4 * wavefunction_Ry)
    assert f"{elements[0]}.toml" in cutoffs.source


def test_a_radius_in_the_header_is_no_recommendation(shared_data, tmp_path):
    alone = tmp_path / "Mg.upf"
    alone.write_bytes((shared_data / "upf" / "Mg.upf").read_bytes())
    with pytest.raises(InputError, match="recommends no cutoff for Mg"):
        recommended_cutoffs({"Mg": alone})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            header(wfc_cutoff="4.258873786381e1", rho_cutoff="3.245670417417e2"),
            (42.58873786381, 324.5670417417),
        ),
        (header(wfc_cutoff="60.0", rho_cutoff="0.0"), (60, 240)),
        ("<PP_HEADER>\n     23.557    371.902 Suggested cutoff for wfc and rho\n", (23.557, 371.902)),
    ],
)
def test_the_header_recommends_in_rydberg(tmp_path, text, expected):
    (tmp_path / "B.upf").write_text(text)
    cutoffs = recommended_cutoffs({"B": tmp_path / "B.upf"})
    assert (cutoffs.wavefunction_Ry, cutoffs.density_Ry) == pytest.approx(expected)


def test_zero_is_no_recommendation(tmp_path):
    (tmp_path / "Mg.upf").write_text(header(wfc_cutoff="0.000000000000e0", rho_cutoff="0.000000000000e0"))
    with pytest.raises(InputError, match="give the cutoffs as numbers"):
        recommended_cutoffs({"Mg": tmp_path / "Mg.upf"})
    with pytest.raises(InputError, match="is not here to recommend"):
        recommended_cutoffs({"Mg": tmp_path / "none.upf"})


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's quantum-espresso-data is not installed")
def test_real_headers_are_read():
    """PSlibrary's boron states 43 and 325 Ry in words; the LDA magnesium states nothing."""
    boron = recommended_cutoffs({"B": DEBIAN / "B.pbe-n-kjpaw_psl.1.0.0.UPF"})
    assert (round(boron.wavefunction_Ry), round(boron.density_Ry)) == (43, 325)
    old = recommended_cutoffs({"Pt": DEBIAN / "Pt.rel-pbe-n-rrkjus.UPF"})
    assert old.density_Ry >= 4 * old.wavefunction_Ry > 0
    with pytest.raises(InputError, match="recommends no cutoff for Mg"):
        recommended_cutoffs({"Mg": DEBIAN / "Mg.pz-n-vbc.UPF"})


def test_sssp_recommends_in_a_table_of_the_family(tmp_path):
    """Each cutoff is the largest by itself: here the wavefunction's of one element, the density's of the other."""
    text = {"Li": header(wfc_cutoff="1.0", rho_cutoff="4.0"), "F": "<UPF>"}
    upfs = {element: tmp_path / f"{element}.upf" for element in text}
    for element, path in upfs.items():
        path.write_text(text[element])
    md5 = hashlib.md5(text["Li"].encode()).hexdigest()  # noqa: S324  SSSP's own choice
    table = {
        "Li": {"cutoff_wfc": 40, "cutoff_rho": 320, "md5": md5},
        "F": {"cutoff_wfc": 45.0, "cutoff_rho": 360.0, "filename": "F.upf"},
        "H": {"cutoff_wfc": 60.0, "cutoff_rho": 480.0},
    }
    (tmp_path / "SSSP_1.3.0_PBE_efficiency.json").write_text(json.dumps(table))
    both = recommended_cutoffs(upfs)
    assert (both.wavefunction_Ry, both.density_Ry) == (45, 360)
    # the table of another version speaks of another file: the header's own word counts
    table["Li"]["md5"] = "0" * 32
    (tmp_path / "SSSP_1.3.0_PBE_efficiency.json").write_text(json.dumps(table))
    assert recommended_cutoffs({"Li": upfs["Li"]}).wavefunction_Ry == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("F.toml", "Ecut = ["),
        ("F.toml", 'Ecut = "high"'),
        ("a.json", "{"),
        ("a.json", '{"F": {"cutoff_wfc": "x"}}'),
    ],
)
def test_a_broken_recommendation_is_refused_by_name(tmp_path, name, content):
    (tmp_path / "F.upf").write_text(header(wfc_cutoff="60.0"))
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        recommended_cutoffs({"F": tmp_path / "F.upf"})
