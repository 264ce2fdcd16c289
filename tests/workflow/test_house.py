"""The house's own rules: one rule, one script, one name; thin entries; a library that imports one way."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = REPOSITORY / "scripts" / "hopline"
RULE_FILES = sorted((REPOSITORY / "rules").glob("*.smk"))
SHARED_FLAGS = {"training_flags", "md_flags", "dft_flags"}
SCRIPTS = sorted(path for path in (REPOSITORY / "scripts").glob("*.py") if path.stem not in SHARED_FLAGS)
MODULES = sorted(LIBRARY.rglob("*.py"))
BATCH = "_batch"
"""Ends the name of a rule that does in one job what the rule of the name before it does in many."""

FOUNDATION = [
    "console",
    "stopping",
    "files",
    "downloads",
    "units",
    "provenance",
    "frames",
    "likeness",
    "splits",
    "structures",
    "trajectory_formats",
    "trajectories",
    "h5_draft",
    "trajectory_writer",
    "work_folder",
]
"""Any stage may import these; they import no stage."""
STAGES = ["potentials", "sampling", "labels", "finetuning", "dynamics", "correlations", "diffusion", "report"]
"""In the order of the workflow's data: no stage imports a later one."""
ENCODERS = "sampling/encoders.py"
FAMILY_PACKAGES = {
    "chgnet": {
        "potentials/chgnet.py",
        "potentials/chgnet_batch.py",
        "potentials/chgnet_graphs.py",
        "finetuning/chgnet.py",
        "finetuning/chgnet_learner.py",
        ENCODERS,
    },
    "mace": {"potentials/mace.py", "finetuning/mace.py", "finetuning/mace_upstream.py"},
    # the config is the rules' business; VASP's presets are data with comments, and its tags are typed as YAML's are
    "yaml": {"labels/vasp.py"},
}
FOREIGN_TO_THE_LIBRARY = {"argparse", "snakemake"}


def n_lines(path):
    return len(path.read_text().splitlines())


def rules_of(path):
    return re.findall(r"^rule (\w+):", path.read_text(), flags=re.MULTILINE)


def imports_of(path):
    """Names of all modules that a file imports anywhere, `from a import b` as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def relative(path):
    return path.relative_to(LIBRARY).as_posix()


def script_of(rule):
    """Name of a rule's script: a rule of a batch calls that of the single run."""
    return rule.removesuffix(BATCH)


def test_each_rule_has_a_script_of_its_name_and_each_script_a_rule():
    rules = [rule for path in RULE_FILES for rule in rules_of(path)]
    assert sorted(rule for rule in rules if rule == script_of(rule)) == [path.stem for path in SCRIPTS]
    assert {script_of(rule) for rule in rules} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_rule_file_opens_with_a_docstring(path):
    assert path.read_text().startswith('"""')


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_script_log_and_rule_share_a_name(path):
    for block in re.split(r"^(?=rule \w+:)", path.read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r"rule (\w+):", block)[1]
        assert f'script=script("{script_of(name)}")' in block
        assert re.search(rf'^    log:\n        "logs/{name}[/.]', block, flags=re.MULTILINE)
        assert re.search(r"^    shell:\n", block, flags=re.MULTILINE)
        assert re.search(r"^    conda:\n", block, flags=re.MULTILINE)


def functions_of(path):
    """Name, arguments and text of each function of a rule file, nameless ones included."""
    text = path.read_text()
    for found in re.finditer(r"^def (\w+)\((.*)\):\n((?:    .*\n|\n)+)", text, flags=re.MULTILINE):
        yield found[1], found[2], found[3]
    for found in re.finditer(r"lambda ([\w, ]+): (.*)", text):
        yield "lambda", found[1], found[2]


def test_settings_do_not_hang_on_inputs():
    """Snakemake does not remember params that are made of inputs: a setting in one could be changed in vain."""
    found = [
        (path.name, name)
        for path in RULE_FILES
        for name, arguments, body in functions_of(path)
        if re.search(r"\b(input|output|threads|resources)\b", arguments)
        and re.search(r"config\[|labels_of|as_flags", body)
    ]
    assert found == []


def test_rule_files_share_one_space_of_names():
    names = [name for path in RULE_FILES for name, *_ in functions_of(path) if name != "lambda"]
    assert len(names) == len(set(names))


def test_snakefile_is_a_table_of_contents():
    assert n_lines(REPOSITORY / "Snakefile") < 40
    assert n_lines(REPOSITORY / "rules" / "common.smk") < 150
    for name in ("common.smk", "checks.smk"):
        assert rules_of(REPOSITORY / "rules" / name) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_a_thin_entry(path):
    assert n_lines(path) <= 95
    assert not {name.partition(".")[0] for name in imports_of(path)} & {"snakemake", "yaml"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_library_module_is_short_and_has_its_own_business(path):
    assert n_lines(path) <= 400
    roots = {name.partition(".")[0] for name in imports_of(path)}
    assert not roots & FOREIGN_TO_THE_LIBRARY
    for package, allowed in FAMILY_PACKAGES.items():
        assert package not in roots or relative(path) in allowed


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_library_imports_one_way(path):
    """Foundation first, then stages in the order of the data; `from hopline import x` counts as hopline.x."""
    rooms = [*FOUNDATION, *STAGES]
    room = relative(path).partition("/")[0].removesuffix(".py")
    if room == "__init__":
        return
    assert room in rooms, f"{relative(path)}: which room is this? Name it in FOUNDATION or STAGES"
    for name in imports_of(path):
        if name.startswith("hopline."):
            other = name.split(".")[1]
            limit = len(FOUNDATION) - 1 if room in FOUNDATION else rooms.index(room)
            assert rooms.index(other) <= limit, f"{relative(path)} imports {name}"


def test_library_foundation_has_no_circle():
    """Follow the imports among foundation modules; `units` stands at the bottom."""
    needs = {
        name: {
            found.split(".")[1]
            for found in imports_of(LIBRARY / f"{name}.py")
            if found.startswith("hopline.")
        }
        for name in FOUNDATION
    }
    assert needs["units"] == set()
    settled: set[str] = set()
    while len(settled) < len(needs):
        ready = {name for name, others in needs.items() if others <= settled} - settled
        assert ready, f"circular imports among {sorted(set(needs) - settled)}"
        settled |= ready
