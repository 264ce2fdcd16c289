"""Potentials of the config: grids spelt out, published settings filled in, and what cannot be trained refused. No rules."""

import itertools

# what comes with a package, and what mace-torch knows an address of (tests hold both to the packages)
SHIPPED = {
    "chgnet": ["0.3.0", "0.2.0", "r2scan"],
    "mace": [
        "small",
        "medium",
        "large",
        "small-0b",
        "medium-0b",
        "small-0b2",
        "medium-0b2",
        "large-0b2",
        "medium-0b3",
        "medium-mpa-0",
        "small-omat-0",
        "medium-omat-0",
        "mace-matpes-pbe-0",
        "mace-matpes-r2scan-0",
        "mh-0",
        "mh-1",
    ],
}
REPLAYING = {"replay", "pseudolabel-replay", "mixed-replay"}
WEIGHTS = ("energy_weight", "force_weight", "stress_weight")
# keys of a potential itself that a grid may have as axes; all others are settings of its training
OWN_AXES = ("train_frames", "replay_frames", "replay", "strategy", "parent", "dataset", "seed")


def expand_grids():
    """Put a potential in the place of each point of a grid: `grid` holds a name and lists of values by key."""
    potentials = config.get("potentials") or {}
    for base, entry in list(potentials.items()):
        if isinstance(entry, dict) and "grid" in entry:
            del potentials[base]
            for name, point in points_of(f"potentials.{base}.grid", entry):
                if name in potentials:
                    refuse(f"potentials.{base}.grid.name", f"gives {name!r} more than once: name each axis in it")
                potentials[name] = point


def points_of(key, entry):
    """Yield name and potential of each point of a grid."""
    axes = dict(entry["grid"]) if isinstance(entry["grid"], dict) else {}
    template = axes.pop("name", None)
    known = axes_known()
    for axis in axes:
        if axis not in known:
            refuse(f"{key}.{axis}", f"no such axis; {nearest(axis, known)}")
    if not isinstance(template, str) or not axes or not all(isinstance(values, list) for values in axes.values()):
        refuse(key, "needs a name such as 'lif-{train_frames}' and at least one list of values")
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        try:
            name = template.format(**{axis: spelt(value) for axis, value in point.items()})
        except (KeyError, IndexError, ValueError, AttributeError):
            refuse(f"{key}.name", f"{template!r} may hold {', '.join(f'{{{axis}}}' for axis in axes)}")
        if "weights" in point and not (isinstance(point["weights"], list) and len(point["weights"]) == len(WEIGHTS)):
            refuse(f"{key}.weights", f"{point['weights']!r} is not energy, force and stress weight, as in [1, 10, 1]")
        yield name, with_point({k: copy.deepcopy(v) for k, v in entry.items() if k != "grid"}, point)


def axes_known():
    """Return what a grid may vary: a potential's own keys, its three weights together, any setting of a training."""
    ways = [settings for family in read_presets("training").values() for settings in family.values()]
    return [*OWN_AXES, "weights", *dict.fromkeys(name for settings in ways for name in settings), "atom_energies"]


def spelt(value):
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def with_point(potential, point):
    """Return a potential with the values of a grid's point: its own keys, else settings of its training."""
    for axis, value in point.items():
        if axis in OWN_AXES:
            potential[axis] = value
        elif axis == "weights":
            potential.setdefault("training", {}).update(zip(WEIGHTS, value, strict=True))
        else:
            potential.setdefault("training", {})[axis] = value
    if potential.get("replay_frames") == 0:
        # nothing to replay is a plain fine-tuning
        potential["strategy"] = "naive"
        potential.pop("replay", None)
        potential.pop("replay_frames")
        potential.get("training", {}).pop("min_finetune_ratio", None)
    return potential


def check_training(name, potential):
    """Refuse a potential that can be neither fetched nor trained; fill in the settings of its strategy."""
    key, strategy, family = f"potentials.{name}", potential.get("strategy"), potential["family"]
    if ("weights" in potential) == bool(strategy):
        refuse(key, "needs either weights (as shipped) or strategy and dataset (trained)")
    if not strategy:
        check_weights(key, family, potential)
        return
    presets = read_presets("training")[family]
    if strategy not in presets:
        refuse(f"{key}.strategy", f"{strategy} is not for {family}; {nearest(strategy, presets)}")
    if "dataset" not in potential:
        refuse(f"{key}.dataset", f"strategy {strategy} needs a dataset; {nearest(name, config['datasets'])}")
    check_reference(f"{key}.dataset", potential["dataset"], config["datasets"])
    if (strategy == "scratch") == ("parent" in potential):
        refuse(
            f"{key}.parent", f"strategy {strategy} " + ("has no parent" if strategy == "scratch" else "needs a parent")
        )
    if (strategy in REPLAYING) != ("replay" in potential):
        refuse(f"{key}.replay", f"strategy {strategy} " + ("needs one" if strategy in REPLAYING else "replays nothing"))
    check_reference(f"{key}.replay", potential.get("replay"), config["replay"])
    if "replay_frames" in potential and "replay" not in potential:
        refuse(f"{key}.replay_frames", f"strategy {strategy} replays nothing")
    check_sizes(key, potential)
    for name_only in ("head", "sha256"):
        if name_only in potential:
            refuse(f"{key}.{name_only}", "is about weights that are fetched, and this potential is trained")
    check_ancestors(name, potential)
    fill_training(key, potential, presets[strategy])


def check_weights(key, family, potential):
    for name in ("parent", "dataset", "training", "replay", "replay_frames", "train_frames", "seed"):
        if name in potential:
            refuse(f"{key}.{name}", "is about a training, and this potential is taken as it is")
    weights = potential["weights"]
    if weights not in SHIPPED[family]:
        if family == "mace" and os.sep in weights:
            check_file(f"{key}.weights", weights)
        else:
            elsewhere = "; or a path with a / in it" if family == "mace" else ""
            refuse(
                f"{key}.weights", f"{family} has no weights {weights!r}; {nearest(weights, SHIPPED[family])}{elsewhere}"
            )
    if family == "mace" and weights in SHIPPED["mace"]:
        check_foundation(key, potential)
    if family != "mace" and ("head" in potential or "sha256" in potential):
        refuse(key, f"head and sha256 are for MACE's weights; {family}'s are in its package")


def check_sizes(key, potential):
    """Refuse numbers of frames that there cannot be; what is held out of them is only known when they are read."""
    picked = config["datasets"][potential["dataset"]]["direct"]["frames"]
    if potential.get("train_frames", 0) > picked:
        refuse(f"{key}.train_frames", f"datasets.{potential['dataset']}.direct.frames picks {picked}: raise it")
    replay = potential.get("replay")
    if replay and potential.get("replay_frames", 0) > config["replay"][replay]["frames"]:
        refuse(f"{key}.replay_frames", f"replay.{replay}.frames is {config['replay'][replay]['frames']}: raise it")


def check_foundation(key, potential):
    """Refuse what stands in the way of a foundation model that is fetched by its name."""
    if "foundations" in config["systems"]:
        refuse("systems.foundations", "results/foundations/ is where foundation models are kept: name it otherwise")
    alike = [entry for entry in config["potentials"].values() if entry.get("weights") == potential["weights"]]
    if len({entry["sha256"].lower() for entry in alike if "sha256" in entry}) > 1:
        refuse(f"{key}.sha256", f"other potentials give {potential['weights']} another one")


def check_ancestors(name, potential):
    """Refuse parents that are not there, of another family, or go round in a circle."""
    potentials, line = config["potentials"], [name]
    while "parent" in potentials[line[-1]]:
        parent = potentials[line[-1]]["parent"]
        check_reference(f"potentials.{line[-1]}.parent", parent, potentials)
        if parent in line:
            refuse(f"potentials.{name}.parent", f"goes round in a circle: {' -> '.join([*line, parent])}")
        line.append(parent)
    if len(line) > 1 and potentials[line[1]]["family"] != potential["family"]:
        refuse(f"potentials.{name}.parent", f"{line[1]} is of another family")


def fill_training(key, potential, preset):
    """Write the published settings into a training where it does not give its own; settings that do nothing are refused."""
    training = potential.setdefault("training", {})
    known = preset | ({"atom_energies": None} if potential["family"] == "mace" else {})
    for name in training:
        if name not in known:
            strategy = f"strategy {potential['strategy']} of {potential['family']}"
            refuse(f"{key}.training.{name}", f"does nothing for {strategy}; {nearest(name, known)}")
    for name, value in preset.items():
        training.setdefault(name, value)
    if potential["strategy"] in ("replay", "pseudolabel-replay") and training["loss"] != "universal":
        refuse(f"{key}.training.loss", "multi-head training has MACE's universal loss, whatever is asked for")
    if potential["family"] == "mace":
        labels = config["datasets"][potential["dataset"]]["labels"]
        isolated = "atom_references" in labels or labels["mode"] != "precomputed"
        training.setdefault("atom_energies", "isolated" if isolated else "estimated")
