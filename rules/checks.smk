"""Refuse a config that cannot work, before any job: one line with the key and the nearest right name. No rules."""

import copy
import difflib
import math
import os
import sys
from pathlib import Path

import jsonschema
import yaml

MAX_LISTED = 20
# elements whose free atoms' spins are tabulated (scripts/hopline/labels/isolated_atoms.py)
FREE_ATOMS = "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr".split()
# of each potential that is a point of a grid: the entry it comes from (expand_grids)
GRID_OF = {}


def refuse(key, why):
    sys.exit(f"config error: {key}{of_grid(key)}: {why}")


def of_grid(key):
    """Say which entry a potential was spelt out from, since no entry of the config has a point's name."""
    points = [point for point in GRID_OF if f"{key}.".startswith(f"potentials.{point}.")]
    return f" (of grid {GRID_OF[max(points, key=len)]})" if points else ""


def closest(word, known):
    """Return the name that a word may have meant: as others call it, abbreviated (lr: learning_rate), by its letters."""
    names = [str(name) for name in known]
    meant = [name for name in names if name in other_names(word)]
    abbreviated = [name for name in names if initials(name) == word]
    return next(iter(meant or abbreviated or difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)), None)


def initials(name):
    words = name.split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else None


def nearest(word, known):
    near = closest(word, known)
    return f"did you mean {near!r}?" if near else there_is(known)


def there_is(known):
    names = ", ".join(map(str, known)) if len(known) <= MAX_LISTED else f"one of {len(known)} names"
    return f"there is {names or 'none'}"


def filling_defaults(validator_class):
    """Return the validator class that also writes each missing key's default into what it checks."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        for name, subschema in properties.items():
            if isinstance(instance, dict) and "default" in subschema:
                instance.setdefault(name, copy.deepcopy(subschema["default"]))
        yield from check_properties(validator, properties, instance, schema)

    return jsonschema.validators.extend(validator_class, {"properties": fill})


BOUNDS = {
    "exclusiveMinimum": "must be more than",
    "minimum": "must be at least",
    "exclusiveMaximum": "must be less than",
    "maximum": "must be at most",
    "minItems": "number of entries must be at least",
    "maxItems": "number of entries must be at most",
    "minProperties": "number of entries must be at least",
}


def read_presets(name):
    return yaml.safe_load(Path(workflow.basedir, "resources/presets", f"{name}.yaml").read_text())


def fill_preset(key, section, presets):
    """Write a preset's settings into a section of the config, where it does not give its own."""
    check_reference(f"{key}.preset", section["preset"], presets)
    for name, value in presets[section["preset"]].items():
        if "kpoint_spacing_per_A" not in section or not name.startswith("kpoints"):
            section.setdefault(name, value)


def fill_presets():
    """Resolve presets before the schema's defaults, which would win over them."""
    for name, dataset in (config.get("datasets") or {}).items():
        espresso = dataset.get("labels", {}).get("espresso", {})
        key = f"datasets.{name}.labels.espresso"
        if "kpoints" in espresso and "kpoint_spacing_per_A" in espresso:
            refuse(f"{key}.kpoint_spacing_per_A", "kpoints is given too: keep one of them")
        if "preset" in espresso:
            fill_preset(key, espresso, read_presets("espresso"))


def nearest_key(path, unknown, known, schema):
    """Say what a key may have meant; of a potential and its training, which are easily confused, look at both."""
    potential, training = (schema["$defs"][name]["properties"] for name in ("potential", "training"))
    beside = {}
    if len(path) == 2 and path[0] == "potentials":
        beside = {name: f"training.{name}" for name in training}
    elif len(path) == 3 and (path[0], path[2]) == ("potentials", "training"):
        beside = {name: f"potentials.{path[1]}.{name}" for name in potential}
    if beside and said_elsewhere(unknown):
        return said_elsewhere(unknown)
    near = closest(unknown, [*known, *beside])
    return nearest(unknown, known) if near is None or near in known else f"did you mean {beside[near]!r}?"


def as_yaml_number(text, whole):
    """Return how YAML wants a number to be written that it reads as text, as it does 1e-4; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return None
    mantissa, _, exponent = text.strip().lower().partition("e")
    if whole:
        return f"{value:.0f}"
    if not exponent:
        return mantissa
    # YAML 1.1 wants a dot and a signed exponent
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{int(exponent):+d}"


def check_schema():
    schema = yaml.safe_load(Path(workflow.basedir, "config/schemas/config.schema.yaml").read_text())
    for error in filling_defaults(jsonschema.Draft202012Validator)(schema).iter_errors(config):
        error = jsonschema.exceptions.best_match([error])
        key = ".".join(map(str, error.absolute_path)) or "config"
        meaning = f" ({error.schema['description'].rstrip('.')})" if "description" in error.schema else ""
        if error.validator == "additionalProperties":
            known = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in known)
            why = nearest_key(list(error.absolute_path), unknown, known, schema)
            refuse(f"{key}.{unknown}".removeprefix("config."), f"no such key; {why}")
        if error.validator == "pattern" and "propertyNames" in error.absolute_schema_path:
            # the key itself: what its description lists is what it is made of
            refuse(f"{key}.{error.instance}", f"a name may hold {lower_first(error.schema['description'])}")
        if error.validator == "pattern":
            refuse(key, f"{error.instance!r} is of another form{meaning}")
        if error.validator == "enum":
            refuse(key, f"{error.instance!r} is not known; {nearest(error.instance, error.validator_value)}{meaning}")
        if error.validator in BOUNDS:
            refuse(key, f"{error.instance!r}: {BOUNDS[error.validator]} {error.validator_value}{meaning}")
        if error.validator_value in ("number", "integer") and isinstance(error.instance, str):
            number = as_yaml_number(error.instance, whole=error.validator_value == "integer")
            if number is not None:
                refuse(key, f"{error.instance!r} is text to YAML, not a number: write {number}{meaning}")
        refuse(key, error.message + meaning)


def lower_first(sentence):
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def listed(value):
    """Return a value that may be one or a list as a list."""
    return value if isinstance(value, list) else [value]


def check_reference(key, name, known):
    if name is not None and name not in known:
        refuse(key, f"{name!r} is not there; {nearest(name, known)}")


def check_file(key, path):
    """Refuse a path that leads nowhere, unless the workflow itself makes it."""
    if os.path.exists(path) or Path(path).parts[0] == "results":
        return
    beside = Path(path).parent
    # a folder that may not be read has no names to offer
    there = [str(beside / name) for name in os.listdir(beside)] if os.access(beside, os.R_OK | os.X_OK) else []
    refuse(key, f"{path} does not exist; " + (nearest(path, there) if beside.is_dir() else f"nor does {beside}/"))


def check_system(name, system):
    host = system["host"]
    if "file" in host:
        check_file(f"systems.{name}.host.file", host["file"])


def check_free_atoms(key, system):
    """Refuse elements whose free atoms are not computed here, unless the config gives their energies."""
    heavy = [element for element in (*system["host"].get("species", []), system["mobile"]) if element not in FREE_ATOMS]
    if heavy:
        refuse(key, f"free atoms are computed from H to Kr: name a JSON with the energies of {', '.join(heavy)}")


def check_dataset(name, dataset):
    key, labels = f"datasets.{name}", dataset["labels"]
    check_reference(f"{key}.system", dataset["system"], config["systems"])
    if dataset["direct"]["frames"] % dataset["direct"]["per_cluster"]:
        refuse(f"{key}.direct.frames", "must be a multiple of per_cluster")
    if labels["mode"] == "precomputed":
        if "source" not in labels:
            refuse(f"{key}.labels.source", "mode precomputed needs the file or folder of the labels")
        for source in sources_of(name):
            check_file(f"{key}.labels.source", source)
    if "atom_references" in labels:
        check_file(f"{key}.labels.atom_references", labels["atom_references"])
    if "kpoints" in labels["espresso"]:
        # the default of what is not used with a mesh: the resolved config could not be read again with both
        labels["espresso"].pop("kpoint_spacing_per_A", None)
    if labels["mode"] == "espresso":
        check_file(f"{key}.labels.espresso.pseudopotentials", labels["espresso"]["pseudopotentials"])
    if labels["mode"] != "precomputed" and "atom_references" not in labels:
        check_free_atoms(f"{key}.labels.atom_references", config["systems"][dataset["system"]])
    if labels["mode"] == "vasp":
        check_file(f"{key}.labels.vasp.potcars", labels["vasp"]["potcars"])
        check_reference(f"{key}.labels.vasp.preset", labels["vasp"]["preset"], read_presets("vasp"))


def check_conditions(name, potential):
    """Refuse systems, compositions and temperatures of a potential's own that its systems do not have."""
    key, systems = f"potentials.{name}", config["systems"]
    for system in potential.get("systems", []):
        check_reference(f"{key}.systems", system, systems)
    for temperature_K in potential.get("temperatures_K", []):
        if not any(temperature_K in systems[system]["temperatures_K"] for system in systems_of(name)):
            where = ", ".join(f"systems.{system}.temperatures_K" for system in systems_of(name))
            refuse(f"{key}.temperatures_K", f"{temperature_K:g} is not in {where}: add it there too")
    for system in systems_of(name):
        for composition in potential.get("compositions", []):
            check_reference(f"{key}.compositions", composition, systems[system]["compositions"])
        if not temperatures_of(name, system):
            remedy = f"add one of them there, or name the potential's systems without {system}"
            refuse(f"{key}.temperatures_K", f"none of them is in systems.{system}.temperatures_K: {remedy}")
        volume_from = config["dynamics"]["npt"].get("volume_from")
        if volume_from is not None and volume_from not in systems[system]["compositions"]:
            known = systems[system]["compositions"]
            why = f"system {system} has no composition {volume_from!r} ({nearest(volume_from, known)})"
            refuse("dynamics.npt.volume_from", f"{why}: add it to systems.{system}.compositions")


def check_replay(name, replay):
    key = f"replay.{name}"
    if ("source" in replay) == ("download" in replay):
        refuse(key, "needs either source (files one has) or download (url and sha256)")
    sources = replay.get("source", [])
    for source in listed(sources):
        check_file(f"{key}.source", source)
    if replay["select"] != "random" and replay["pool_frames"] < replay["frames"]:
        refuse(f"{key}.pool_frames", f"must be frames ({replay['frames']}) or more: it is selected from")
    if replay["valid_fraction"] + replay["test_fraction"] >= 1:
        refuse(f"{key}.valid_fraction", "together with test_fraction leaves nothing to train on: lower one")
    if "replay" in config["systems"]:
        refuse("systems.replay", "results/replay/ is where replay sets are kept: give the system another name")


def check_test_set(name, test_set):
    key, own = f"test_sets.{name}", ("system", "source")
    if ("replay" in test_set) == any(word in test_set for word in own):
        refuse(key, "needs either replay (a replay set), or system and source (a labelled set)")
    check_reference(f"{key}.replay", test_set.get("replay"), config["replay"])
    for word in own:
        if "replay" not in test_set and word not in test_set:
            refuse(f"{key}.{word}", "is missing: a labelled set needs system and source")
    check_reference(f"{key}.system", test_set.get("system"), config["systems"])
    for source in listed(test_set.get("source", [])):
        check_file(f"{key}.source", source)


def check_committee(name, committee):
    key = f"committees.{name}"
    check_reference(f"{key}.dataset", committee["dataset"], config["datasets"])
    system = config["datasets"][committee["dataset"]]["system"]
    for member in committee["members"]:
        check_reference(f"{key}.members", member, config["potentials"])
        if member not in potentials_of(system):
            refuse(f"{key}.members", f"{member} is not of system {system}, whose dataset they are asked for")


def check_exploration():
    name, potentials = config["exploration"]["potential"], config["potentials"]
    if not config["datasets"] or name in potentials:
        return
    # one that is trained would be needed before the frames that it is trained on
    shipped = [other for other, entry in potentials.items() if "weights" in entry]
    remedy = nearest(name, shipped)
    if not shipped:
        remedy += (
            f' that is taken as it is: add {name}: {{family: chgnet, weights: {EXAMPLES["chgnet"]}}} to potentials'
        )
    elif closest(name, shipped) is None:
        remedy += f": write exploration: {{potential: {shipped[0]}}}"
    refuse("exploration.potential", f"{name!r} is not there; {remedy}")


def check_times(key, section, durations):
    """Refuse frames that come amid a timestep, and runs shorter than a frame interval, as the scripts do."""
    interval_fs, timestep_fs = section["frame_interval_fs"], section["timestep_fs"]
    steps = interval_fs / timestep_fs
    if not is_whole(steps):
        near = " or ".join(f"{n * timestep_fs:.10g}" for n in sorted({max(1, math.floor(steps)), math.ceil(steps)}))
        why = f"{interval_fs:.10g} is no whole number of timesteps ({timestep_fs:.10g}): take {near}"
        refuse(f"{key}.frame_interval_fs", why)
    for name, duration_ps in durations.items():
        check_duration(name, duration_ps, f"{key}.frame_interval_fs", interval_fs)


def check_duration(key, duration_ps, other, interval_fs):
    if duration_ps * 1000 < interval_fs * (1 - 1e-6):
        refuse(key, f"{duration_ps:g} ps is less than {other} ({interval_fs:g} fs)")


def is_whole(number):
    """Whether a number is 1, 2, 3, ... but for rounding."""
    return number > 0.5 and abs(number - round(number)) < 1e-6 * number


def check_stages():
    """Refuse times of any run that its script would refuse."""
    dynamics, stability = config["dynamics"], config["stability"]
    check_times("exploration", config["exploration"], {"exploration.duration_ps": config["exploration"]["duration_ps"]})
    for stage in ("npt", "nvt", "production"):
        durations = {f"dynamics.{stage}.duration_ps": dynamics[stage]["duration_ps"]}
        for name, potential in config["potentials"].items():
            own = potential.get("dynamics", {})
            if f"{stage}_duration_ps" in own:
                durations[f"potentials.{name}.dynamics.{stage}_duration_ps"] = own[f"{stage}_duration_ps"]
        check_times(f"dynamics.{stage}", dynamics[stage], durations)
    if any("strategy" in potential for potential in config["potentials"].values()):
        # the hot run before the dynamics of what is trained
        interval_fs, timestep_fs = dynamics["nvt"]["frame_interval_fs"], stability["timestep_fs"]
        if not is_whole(interval_fs / timestep_fs):
            why = f"dynamics.nvt.frame_interval_fs ({interval_fs:g}) is no whole number of it, and its hot run has the same"
            refuse("stability.timestep_fs", f"{timestep_fs:g}: {why}")
        check_duration(
            "stability.hot_duration_ps", stability["hot_duration_ps"], "dynamics.nvt.frame_interval_fs", interval_fs
        )


def check_dynamics():
    """Refuse a thermostat or a barostat that the engine does not have, and a friction that nothing feels."""
    dynamics, exploration = config["dynamics"], config["exploration"]
    barostats = {"dynamics.npt": dynamics["npt"]}
    if exploration["ensemble"] == "npt":
        barostats["exploration"] = exploration
    chosen = {f"{key}.barostat": (section["barostat"], "langevin-piston") for key, section in barostats.items()}
    chosen["dynamics.nvt.thermostat"] = (dynamics["nvt"]["thermostat"], "langevin")
    for key, (value, of_ase) in chosen.items():
        if dynamics["engine"] == "ase" and value != of_ase:
            refuse(key, f"{value} needs dynamics.engine: batched; engine ase has {of_ase}")
    friction = "barostat_friction_per_ps"
    if friction in dynamics["npt"] and dynamics["npt"]["barostat"] != "langevin-piston":
        refuse(f"dynamics.npt.{friction}", f"barostat {dynamics['npt']['barostat']} has none: leave it out")


def check_references():
    check_exploration()
    check_stages()
    check_dynamics()
    giving_volume = config["dynamics"]["npt"].get("volume_from_potential")
    check_reference("dynamics.npt.volume_from_potential", giving_volume, config["potentials"])
    for check, section in (
        (check_system, "systems"),
        (check_dataset, "datasets"),
        (check_replay, "replay"),
        (check_training, "potentials"),
        (check_conditions, "potentials"),
        (check_test_set, "test_sets"),
        (check_committee, "committees"),
    ):
        for name, entry in config[section].items():
            check(name, entry)
    first, last = (config["diffusion"].get(name) for name in ("fit_start_ps", "fit_stop_ps"))
    if first is not None and last is not None and first >= last:
        refuse("diffusion.fit_start_ps", f"{first:g} must be less than fit_stop_ps ({last:g})")
