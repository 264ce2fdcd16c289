"""POTCARs: found, and refused unless they are the ones meant. No genuine one may lie here: all are made up."""

import gzip
import hashlib

import pytest
from pymatgen.io.vasp import inputs as pymatgen_inputs
from vasp_standin import potcar

from hopline.console import InputError
from hopline.labels import potcars
from hopline.labels.potcars import Check

TITLE = "PAW_PBE Mg_pv 13Apr2007"
CONTENT = potcar(TITLE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Mg_pv").mkdir()
    (tmp_path / "Mg_pv" / "POTCAR").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def known_to_pymatgen(monkeypatch):
    """Enter a POTCAR into pymatgen's table of statistics, as if it were genuine and of one release."""

    def enter(content, release, symbol):
        with pytest.warns(pymatgen_inputs.UnknownPotcarWarning):
            single = pymatgen_inputs.PotcarSingle(content.decode())
        entry = {
            "LEXCH": "PE",
            "VRHFIN": single.VRHFIN.replace(" ", ""),
            "symbol": symbol,
            **single._summary_stats,
        }
        table = {key: {} for key in pymatgen_inputs.PotcarSingle.functional_dir}
        table[release] = {single.TITEL.replace(" ", ""): [entry]}
        monkeypatch.setattr(pymatgen_inputs, "_load_potcar_summary_stats", lambda: table)

    return enter


@pytest.mark.parametrize(
    "place",
    ["Mg_pv/POTCAR", "POTCAR.Mg_pv", "Mg_pv/POTCAR.gz", "POTCAR.Mg_pv.gz", "POT_PAW_PBE_64/POTCAR.Mg_pv.gz"],
)
def test_a_potcar_is_found_in_every_usual_place(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(CONTENT) if place.endswith(".gz") else CONTENT)
    found = potcars.load(tmp_path, "Mg_pv", Check("PBE_64", SHA256))
    assert (found.symbol, found.content, found.sha256) == ("Mg_pv", CONTENT, SHA256)


def test_a_missing_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no POTCAR of Mg_pv: put it there as Mg_pv/POTCAR"):
        potcars.load(tmp_path, "Mg_pv", Check())
    with pytest.raises(InputError, match="does not exist"):
        potcars.load(tmp_path / "nowhere", "Mg_pv", Check())


def test_one_that_pymatgen_does_not_know_is_refused_unless_its_hash_is_given(folder):
    with pytest.raises(InputError, match="pymatgen does not know PAW_PBE Mg_pv 13Apr2007 with this content"):
        potcars.load(folder, "Mg_pv", Check("PBE_64"))
    assert potcars.load(folder, "Mg_pv", Check("PBE_64", SHA256.upper())).sha256 == SHA256


def test_another_content_than_asked_for_is_refused(folder):
    with pytest.raises(InputError, match=f"its SHA-256 is {SHA256}, not {'0' * 64}"):
        potcars.load(folder, "Mg_pv", Check(sha256="0" * 64))


def test_one_changed_digit_is_found_by_the_files_own_hash(folder):
    sealed = potcar(TITLE, own_hash=True)
    changed = sealed.replace(b"2.5", b"2.6")
    for content, symbol in ((sealed, "Mg_pv"), (changed, "Mg_pv")):
        (folder / symbol / "POTCAR").write_bytes(content)
        check = Check(sha256=hashlib.sha256(content).hexdigest())
        if content is sealed:
            assert potcars.load(folder, "Mg_pv", check).content == sealed
        else:
            with pytest.raises(InputError, match="does not fit the SHA256 in its own header"):
                potcars.load(folder, "Mg_pv", check)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT[:-20], "cut off, or joined"),
        (CONTENT + CONTENT, "cut off, or joined"),
        (b"", "no TITEL"),
        (bytes(range(256)), "no TITEL"),
        (gzip.compress(CONTENT)[:60], "compressed file is damaged"),
        (b"   TITEL  = PAW_PBE Mg_pv\n End of Dataset\n", "pymatgen does not know PAW_PBE Mg_pv"),
    ],
    # gzip writes the time into its header: workers must agree on the names of the tests
    ids=["cut", "joined", "empty", "binary", "packed and cut", "hollow"],
)
def test_damaged_ones_are_refused_in_one_line(folder, content, reason):
    (folder / "Mg_pv" / "POTCAR").write_bytes(content)
    with pytest.raises(InputError, match=reason) as refusal:
        potcars.load(folder, "Mg_pv", Check("PBE_64"))
    assert "\n" not in str(refusal.value)


def test_a_known_one_must_be_of_the_symbol_and_release_asked_for(folder, known_to_pymatgen):
    known_to_pymatgen(CONTENT, "PBE_54_W_HASH", "Mg_pv")
    assert potcars.load(folder, "Mg_pv", Check("PBE_54")).sha256 == SHA256
    assert potcars.load(folder, "Mg_pv", Check()).sha256 == SHA256
    with pytest.raises(InputError, match="it is of release PBE_54, not PBE_64"):
        potcars.load(folder, "Mg_pv", Check("PBE_64"))
    (folder / "POTCAR.Mg").write_bytes(CONTENT)
    with pytest.raises(
        InputError, match=r"POTCAR\.Mg is not the POTCAR of Mg that is needed: it is of Mg_pv"
    ):
        potcars.load(folder, "Mg", Check())
    (folder / "Mg_pv" / "POTCAR").write_bytes(potcar(TITLE, numbers="1.5 2.5 -3.4"))
    with pytest.raises(InputError, match="pymatgen does not know"):
        potcars.load(folder, "Mg_pv", Check("PBE_54"))


def test_checks_come_back_as_written(tmp_path):
    checks = {"Mg_pv": Check("PBE_64", SHA256), "H": Check()}
    potcars.write_checks(tmp_path / potcars.CHECKS, checks)
    assert potcars.read_checks(tmp_path / potcars.CHECKS) == checks
    (tmp_path / potcars.CHECKS).write_text("Mg_pv\n")
    with pytest.raises(InputError, match="lines of symbol"):
        potcars.read_checks(tmp_path / potcars.CHECKS)
    with pytest.raises(InputError, match=r"write_vasp_inputs\.py"):
        potcars.read_checks(tmp_path / "nowhere")
