"""What every stage uses: the checked config, what it names, wildcard constraints, flags. No rules."""

import json
import shlex
import zlib


def systems_of(potential):
    entry = config["potentials"][potential]
    trained_on = [config["datasets"][entry["dataset"]]["system"]] if "dataset" in entry else list(config["systems"])
    return entry.get("systems", trained_on)


def potentials_of(system):
    return [name for name in config["potentials"] if system in systems_of(name)]


def compositions_of(potential, system):
    counts = config["systems"][system]["compositions"]
    return config["potentials"][potential].get("compositions", [name for name in counts if counts[name]] or [*counts])


def temperatures_of(potential, system):
    """Return the system's temperatures that a potential runs at: all, or those it names too."""
    temperatures_K = config["systems"][system]["temperatures_K"]
    own = config["potentials"][potential].get("temperatures_K", temperatures_K)
    return [f"{value:g}" for value in temperatures_K if value in own]


def sources_of(dataset):
    """Return the files and folders that the labels of a precomputed dataset come from."""
    source = config["datasets"][dataset]["labels"]["source"]
    return listed(source)


def test_sets_of(system):
    """Return the further test sets of a system: its own, and what is left of replay sets for all systems."""
    return [name for name, test_set in config["test_sets"].items() if test_set.get("system", system) == system]


def committees_of(system):
    return [name for name, one in config["committees"].items() if one["dataset"] in datasets_of(system)]


def datasets_of(system):
    return [name for name, dataset in config["datasets"].items() if dataset["system"] == system]


def as_flags(section, *names):
    """Spell a config section (or the named keys of it) as command-line flags, whatever the order it is written in."""
    flags = []
    for name in names or sorted(section):
        values = section[name] if isinstance(section[name], list) else [section[name]]
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(flags)


def input_flags(*names):
    """Return a function for params that spells the named inputs as flags, those that a job has.

    Settings never go this way: Snakemake does not remember params that hang on inputs, so a changed one would redo
    nothing (test_house.py looks for it).
    """

    def spelt(wildcards, input):
        return as_flags({name: input[name] for name in names if input[name]})

    return spelt


def seed(*words):
    """Derive a job's own seed from the config's seed and the words that name the job."""
    return zlib.crc32("/".join([str(config["seed"]), *words]).encode())


def script(name):
    return f"scripts/{name}.py"


def write_resolved_config():
    """Leave the config as it is used, every default and preset in it, in results/config.yaml."""
    Path("results").mkdir(exist_ok=True)
    beside = Path("results/.config.yaml")
    beside.write_text(yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, width=120))
    beside.replace("results/config.yaml")


expand_grids()
fill_presets()
check_schema()
check_references()

TRAINED = [name for name, entry in config["potentials"].items() if "strategy" in entry]


def one_of(names):
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    system=one_of(config["systems"]),
    dataset=one_of(config["datasets"]),
    composition=one_of({name for system in config["systems"].values() for name in system["compositions"]}),
    potential=one_of(config["potentials"]),
    test_set=one_of(config["test_sets"]),
    committee=one_of(config["committees"]),
    temperature_K=r"[0-9.]+",
    replica=r"[0-9]+",
    index=r"[0-9]{4}",
    batch="all|[^/]+K",
