"""VASP is not here: a stand-in for it, POTCARs made up for it, and inputs of the one real run that it prints."""

import hashlib
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import ase.io
import yaml
from ase import Atoms

from hopline.labels import vasp

ENERGY_EV, SCF_STEPS, WALL_TIME_S = -57.48343729, 21, 31.413
"""Of Ti-O-Ti-v6 in the shared data: TOTEN, electronic steps and elapsed time as its OUTCAR prints them."""
PRESET = vasp.Preset(
    incar={
        "GGA": "PE", "ENCUT": 350, "ISMEAR": 1, "SIGMA": 0.2, "PREC": "Accurate", "EDIFF": 1e-6, "NELM": 100,
        "KSPACING": 10.0, "KGAMMA": False, "ISYM": 0,
    },
    potcars={"Ti": "Ti", "O": "O"},
)  # fmt: skip
"""The settings of that run."""

STAND_IN = """
import os, pathlib, re, shutil, sys, time
here, book, real = pathlib.Path.cwd(), pathlib.Path(os.environ["STAND_IN"]), pathlib.Path(os.environ["REAL_RUNS"])
incar = (here / "INCAR").read_text()
density = "density" if (here / "CHGCAR").exists() else "no density"
with (book / "starts").open("a") as file:
    charge = re.search(r"ICHARG = (.*)", incar)
    print("ICHARG %s; %s; %d" % (charge and charge[1], density, (here / "POTCAR").stat().st_size), file=file)
number = len((book / "starts").read_text().splitlines())
deeds = (book / "deeds").read_text().split("|")
deed, _, words = deeds[min(number, len(deeds)) - 1].partition(":")
xml = (book / "vasprun.xml").read_text()
outcar = (real / "Ti-O-Ti-v6.OUTCAR").read_text()
print(" running on    1 total cores\\n vasp.6.3.0 20Jan22 (build Apr 09 2022 18:33:31) complex")
if deed == "nothing":
    print("There are not enough slots available")
    sys.exit(1)
(here / "OUTCAR").write_text(outcar[:9000])
if deed == "die":
    print(words)
    (here / "vasprun.xml").write_text(xml[:20000])
    sys.exit(1)
if deed == "hang":
    print("DAV:   1", flush=True)
    (here / "vasprun.xml").write_text(xml[:20000])
    while not (here / "STOPCAR").exists():
        time.sleep(0.05)
    print("hard stop encountered!  aborting job ...")
    (here / "STOPCAR").unlink()
if deed == "stopped":
    print("hard stop encountered!  aborting job ...")
if deed == "unconverged":
    xml = xml.replace('name="NELM">   100<', 'name="NELM">    21<')
    xml = xml.replace('"EDIFF">      0.00000100<', '"EDIFF">  1e-15<')
(here / "CHGCAR").write_text("density of start %d" % number)
(here / "vasprun.xml").write_text(xml)
(here / "OUTCAR").write_text(outcar)
"""
"""Does what $STAND_IN/deeds says of each start, the last for all others, and notes its starts beside it.

``good``, ``unconverged`` and ``stopped`` print a real run, as it was, with fewer steps allowed, or after a hard stop;
``die:WORDS`` prints words and ends early, ``nothing`` before all, ``hang`` waits for a STOPCAR.
"""


def install(folder: Path, monkeypatch, shared_data: Path, deeds: str = "good") -> Path:
    """Put the stand-in first on PATH as vasp_std and return the folder of its book."""
    (folder / "bin").mkdir()
    (folder / "bin" / "vasp_std").write_text(f"#!{sys.executable}\n{STAND_IN}")
    (folder / "bin" / "vasp_std").chmod(0o755)
    (folder / "deeds").write_text(deeds)
    _write_in_order(shared_data / "dft_outputs" / "vasp" / "Ti-O-Ti-v6.vasprun.xml", folder / "vasprun.xml")
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    monkeypatch.setenv("STAND_IN", str(folder))
    monkeypatch.setenv("REAL_RUNS", str(shared_data / "dft_outputs" / "vasp"))
    return folder


def _write_in_order(real: Path, target: Path) -> None:
    """Write the real vasprun.xml (Ti3 O2 Ti3) with its atoms in the order of our POSCAR: O2 Ti6."""
    tree = ET.parse(real)  # noqa: S314  our own file
    atoms = tree.find("atominfo/array[@name='atoms']/set")
    elements = [row.find("c").text.strip() for row in atoms]
    order = sorted(range(len(elements)), key=elements.__getitem__)
    tables = [
        table
        for name in ("positions", "forces")
        for table in tree.iter("varray")
        if table.get("name") == name
    ]
    for table in (atoms, *tables):
        rows = list(table)
        table[:] = [rows[index] for index in order]
    tree.write(target, encoding="ISO-8859-1", xml_declaration=True)


def starts(book: Path) -> list[str]:
    """Return how each start of the stand-in was made: ICHARG, whether a density lay there, bytes of the POTCAR."""
    return (book / "starts").read_text().splitlines() if (book / "starts").is_file() else []


def real_frame(shared_data: Path) -> Atoms:
    """Return the structure of the real run, in another order of its atoms than VASP's."""
    atoms = ase.io.read(shared_data / "dft_outputs" / "vasp" / "Ti-O-Ti-v6.vasprun.xml", "0")
    bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    bare.info |= {"system": "ti-o", "composition": "O2", "source": "a.h5"}
    return bare


def potcar(title: str, *, numbers: str = "1.5 2.5 -3.5", own_hash: bool = False) -> bytes:
    """Return a made-up file in the form of a POTCAR; with the SHA256 line of later releases if asked for."""
    symbol = title.split()[1]
    lines = [
        f"  {title}", "   4.00000000000000", " parameters from PSCTR are:", f"   VRHFIN ={symbol[:2]}: none",
        "   LEXCH  = PE", "   EATOM  =    10.0000 eV,    1.0000 Ry", "", f"   TITEL  = {title}",
        "   LULTRA =        F    use ultrasoft PP ?", "   ENMAX  =  200.000; ENMIN  =  150.000 eV",
        "   POMASS =   24.305; ZVAL   =    2.000    mass and valenz", "END of PSCTR-controll parameters",
        " local part", f"  {numbers}", " End of Dataset", "",
    ]  # fmt: skip
    content = "\n".join(lines).encode()
    if own_hash:
        seal = f"   SHA256 = {hashlib.sha256(content).hexdigest()} {symbol}/POTCAR\n   COPYR  = nobody\n".encode()
        content = content.replace(b"   LEXCH", seal + b"   LEXCH")
    return content


def potcar_folder(folder: Path, titles=("PAW_PBE Ti 08Apr2002", "PAW_PBE O 08Apr2002")) -> dict[str, str]:
    """Write made-up POTCARs as SYMBOL/POTCAR and return their SHA-256 by symbol."""
    hashes = {}
    for title in titles:
        symbol, content = title.split()[1], potcar(title)
        (folder / symbol).mkdir(parents=True)
        (folder / symbol / "POTCAR").write_bytes(content)
        hashes[symbol] = hashlib.sha256(content).hexdigest()
    return hashes


def preset_file(folder: Path, hashes: dict[str, str]) -> Path:
    """Write the preset ``real`` with the content of its POTCARs, as a user would."""
    content = {"incar": dict(PRESET.incar), "potcars": dict(PRESET.potcars), "sha256": hashes}
    (folder / "presets.yaml").write_text(yaml.safe_dump({"real": content}))
    return folder / "presets.yaml"
