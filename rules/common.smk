"""What every stage uses: the checked config, wildcard constraints, flags. No rules."""

import copy
import difflib
import shlex
import sys
import zlib
from pathlib import Path

import jsonschema
import yaml


def refuse(key, why):
    sys.exit(f"config error: {key}: {why}")


def nearest(word, known):
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(str, known)) or 'none'}"


def filling_defaults(validator_class):
    """Return the validator class that also writes each missing key's default into what it checks."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        for name, subschema in properties.items():
            if isinstance(instance, dict) and "default" in subschema:
                instance.setdefault(name, copy.deepcopy(subschema["default"]))
        yield from check_properties(validator, properties, instance, schema)

    return jsonschema.validators.extend(validator_class, {"properties": fill})


def check_schema():
    schema = yaml.safe_load(Path(workflow.basedir, "config/schemas/config.schema.yaml").read_text())
    for error in filling_defaults(jsonschema.Draft202012Validator)(schema).iter_errors(config):
        error = jsonschema.exceptions.best_match([error])
        key = ".".join(map(str, error.absolute_path)) or "config"
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in known)
            refuse(f"{key}.{unknown}".removeprefix("config."), f"no such key; {nearest(unknown, known)}")
        refuse(key, error.message + (f" ({error.schema['description']})" if "description" in error.schema else ""))


def check_reference(key, name, known):
    if name is not None and name not in known:
        refuse(key, f"{name!r} is not there; {nearest(name, known)}")


def check_references():
    systems, datasets, potentials = config["systems"], config["datasets"], config["potentials"]
    check_reference("exploration.potential", config["exploration"]["potential"] if datasets else None, potentials)
    check_reference(
        "dynamics.npt.volume_from_potential", config["dynamics"]["npt"].get("volume_from_potential"), potentials
    )
    for name, dataset in datasets.items():
        key = f"datasets.{name}"
        check_reference(f"{key}.system", dataset["system"], systems)
        if dataset["direct"]["frames"] % dataset["direct"]["per_cluster"]:
            refuse(f"{key}.direct.frames", "must be a multiple of per_cluster")
        if dataset["labels"]["mode"] == "precomputed" and "source" not in dataset["labels"]:
            refuse(f"{key}.labels.source", "mode precomputed needs the file or folder of the labels")
    for name, potential in potentials.items():
        key, strategy = f"potentials.{name}", potential.get("strategy")
        if ("weights" in potential) == bool(strategy):
            refuse(key, "needs either weights (as shipped) or strategy and dataset (trained)")
        if strategy and "dataset" not in potential:
            refuse(f"{key}.dataset", f"strategy {strategy} needs a dataset; {nearest(name, datasets)}")
        if (strategy == "naive") != ("parent" in potential):
            refuse(f"{key}.parent", "strategy naive needs a parent, and only naive has one")
        check_reference(f"{key}.dataset", potential.get("dataset"), datasets)
        check_reference(f"{key}.parent", potential.get("parent"), potentials)
        if "parent" in potential and potentials[potential["parent"]]["family"] != potential["family"]:
            refuse(f"{key}.parent", f"{potential['parent']} is of another family")
        for system in potential.get("systems", []):
            check_reference(f"{key}.systems", system, systems)
        for counts in (systems[system]["compositions"] for system in systems_of(name)):
            check_reference("dynamics.npt.volume_from", config["dynamics"]["npt"].get("volume_from"), counts)
            for composition in potential.get("compositions", []):
                check_reference(f"{key}.compositions", composition, counts)


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
    own = config["potentials"][potential].get("temperatures_K")
    return [f"{value:g}" for value in own or config["systems"][system]["temperatures_K"]]


def datasets_of(system):
    return [name for name, dataset in config["datasets"].items() if dataset["system"] == system]


def as_flags(section, *names):
    """Spell a config section (or the named keys of it) as command-line flags, whatever the order it is written in."""
    flags = []
    for name in names or sorted(section):
        values = section[name] if isinstance(section[name], list) else [section[name]]
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(flags)


def seed(*words):
    """Derive a job's own seed from the config's seed and the words that name the job."""
    return zlib.crc32("/".join([str(config["seed"]), *words]).encode())


def script(name):
    return f"scripts/{name}.py"


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
    temperature_K=r"[0-9.]+",
    replica=r"[0-9]+",
    index=r"[0-9]{4}",
