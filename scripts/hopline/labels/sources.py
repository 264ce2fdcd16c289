"""Every door to labelled frames: which file is of which format, what a folder holds, one frame after the other."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ase import Atoms

from hopline.console import InputError
from hopline.labels import origin, text
from hopline.labels.candidates import Broken, Candidate
from hopline.labels.readers import (
    ase_database,
    deepmd,
    espresso,
    extxyz,
    ml_ab,
    mptrj,
    outcar,
    vasprun,
)

AUTO = "auto"
FILE_READERS: Sequence[ModuleType] = (espresso, vasprun, outcar, ml_ab, mptrj, ase_database, extxyz)
READERS = {reader.FORMAT: reader for reader in (*FILE_READERS, deepmd)}
FORMATS = (AUTO, *READERS)
RUNS = (espresso, vasprun, outcar)
"""Formats of a single run, beside which Hopline may have left the frame that went in."""
INPUTS = {"pw.in": "pw.out", "INCAR": "vasprun.xml"}
"""What says that a folder was meant for a run, and what that run leaves."""
UNDERSTOOD = (
    "these are read: extended XYZ, pw.x outputs and XML, vasprun.xml, OUTCAR, ML_AB, DeePMD folders, ASE databases and "
    "MPtrj's JSON, compressed (gz, bz2, xz) or not, and folders of them"
)


@dataclass(frozen=True)
class Source:
    """One file (DeePMD: folder) of frames and the reader that understands it."""

    path: Path
    reader: ModuleType


def candidates(sources: Iterable[str | os.PathLike[str]], *, file_format: str) -> Iterator[Candidate]:
    """Yield every frame of every source; a file that cannot be read further ends with a frame that says why.

    Parameters
    ----------
    sources
        Files, or folders that are searched through.
    file_format
        ``auto`` tells each file by its content; another of `FORMATS` takes all files as that, and in folders those
        alone.

    Raises
    ------
    InputError
        If a source does not exist or is of no known format.
    """
    if file_format not in FORMATS:
        raise InputError(f"format {file_format} is not known: {', '.join(FORMATS)} are")
    for name in sources:
        path = Path(name)
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if path.is_dir() and not deepmd.is_system(path):
            for folder, files in _walk(path):
                found = _once_per_run(_in_folder(folder, files))
                if not any(source.reader in RUNS for source in found):
                    yield from _not_run(folder, files)
                for source in found:
                    if file_format in {AUTO, source.reader.FORMAT}:
                        yield from _frames(source)
        else:
            yield from _frames(_of_file(path, file_format))


def structures(paths: Iterable[Path], *, file_format: str) -> dict[str, list[Atoms]]:
    """Return the structures in each file, by its name, whatever becomes of their labels."""
    return {
        str(path): [found.atoms for found in candidates([path], file_format=file_format) if found.atoms]
        for path in paths
    }


def _of_file(path: Path, file_format: str) -> Source:
    if path.is_dir():
        return Source(path, deepmd)
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder")
    if file_format == AUTO:
        found = _recognised(path)
        if found is None:
            raise InputError(f"the format of {path} is not understood; {UNDERSTOOD}")
        return found
    reader = READERS[file_format]
    if reader is deepmd:
        raise InputError(f"{path} is a file: name the DeePMD folder that holds type.raw and set.*")
    return Source(path, reader)


def _recognised(path: Path) -> Source | None:
    head, name = text.head(path), text.plain_name(path)
    reader = next((reader for reader in FILE_READERS if reader.recognises(name, head)), None)
    return None if reader is None else Source(path, reader)


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders with their files, in order; links are followed, each folder is visited once, hidden ones never.

    A DeePMD system counts as one thing, named by its folder with no files.
    """
    visited: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(top, followlinks=True, onerror=_raise):
        here = Path(folder)
        status = here.stat()
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        if deepmd.is_system(here):
            names.clear()
            yield here, []
        else:
            yield here, sorted(name for name in files if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _in_folder(folder: Path, files: Sequence[str]) -> Iterator[Source]:
    """Yield what a folder holds; files of no known format (inputs, logs) are passed over."""
    if not files and deepmd.is_system(folder):
        found: list[Source | None] = [Source(folder, deepmd)]
    else:
        found = [_recognised(folder / name) for name in files if (folder / name).is_file()]
    yield from (source for source in found if source is not None)


def _once_per_run(found: Iterable[Source]) -> list[Source]:
    """Return the sources of a folder without those that tell of the same run a second time.

    A vasprun.xml holds more digits than the OUTCAR of the same name, ML_ABN all of ML_AB, pw.x's output the same as
    its XML; frame.extxyz is a run's input.
    """
    sources = list(found)
    names = {source.path.name for source in sources}
    runs = {_run_name(source.path, "vasprun") for source in sources if source.reader is vasprun}
    ran = any(source.reader in RUNS for source in sources)
    not_run = bool(sources) and any((sources[0].path.parent / given).is_file() for given in INPUTS)
    printed = any(source.reader is espresso and not _is_xml(source.path) for source in sources)
    kept = []
    for source in sources:
        again = (
            (source.reader is outcar and _run_name(source.path, "OUTCAR") in runs)
            or (source.reader is ml_ab and f"{source.path.name}N" in names)
            or (source.reader is espresso and _is_xml(source.path) and printed)
            or (source.path.name == origin.FRAME and (ran or not_run))
        )
        kept += [] if again else [source]
    return kept


def _not_run(folder: Path, files: Sequence[str]) -> Iterator[Candidate]:
    """Yield the rejected frame of a folder that holds a run's input and no output."""
    for given, output in INPUTS.items():
        if given in files:
            reason = f"not run: there is no {output} beside {given}"
            yield Candidate(str(folder / output), 0, origin.frame_beside(folder / output), reason)


def _is_xml(path: Path) -> bool:
    return text.plain_name(path).endswith(".xml")


def _run_name(path: Path, word: str) -> str:
    """Return what is left of a file's name without the word for its format: the run it is of."""
    return text.plain_name(path).replace(".xml", "").replace(word, "")


def _frames(source: Source) -> Iterator[Candidate]:
    """Yield the frames of one source, each run's with the origin that Hopline left beside it."""
    row, beside = 0, None
    try:
        beside = origin.frame_beside(source.path) if source.reader in RUNS else None
        for candidate in source.reader.read(source.path):
            row = candidate.frame + 1
            yield candidate if beside is None else origin.with_origin(candidate, beside)
    except Broken as error:
        yield Candidate(str(source.path), row, atoms=beside, reason=str(error), ends_early=True)
