"""Potentials of the config: grids spelt out, published settings filled in, and what cannot be trained refused. No rules."""

import itertools
import math
import re

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
# MACE's foundation models by what their authors, papers and calculators call them, without "mace", size and "-0"
FOUNDATIONS = {
    "mp": ["small", "medium", "large"],
    "mp-0a": ["small", "medium", "large"],
    "mp-0b": ["small-0b", "medium-0b"],
    "mp-0b2": ["small-0b2", "medium-0b2", "large-0b2"],
    "mp-0b3": ["medium-0b3"],
    "mpa": ["medium-mpa-0"],
    "omat": ["small-omat-0", "medium-omat-0"],
    "matpes": ["mace-matpes-pbe-0", "mace-matpes-r2scan-0"],
    "matpes-pbe": ["mace-matpes-pbe-0"],
    "matpes-r2scan": ["mace-matpes-r2scan-0"],
    "mh": ["mh-0", "mh-1"],
    "mh-1": ["mh-1"],
}
SIZES = ("small", "medium", "large")
MODEL_FILES = (".model", ".pt", ".pth")
# weights to begin with
EXAMPLES = {"chgnet": '"0.3.0"', "mace": "medium-mpa-0"}
# what mace_run_train, CHGNet's trainer and others call our keys
SYNONYMS = {
    "epochs": ["max_num_epochs", "num_epochs", "max_epochs", "n_epochs"],
    "patience_epochs": ["patience"],
    "force_weight": ["forces_weight", "force_loss_ratio"],
    "energy_weight": ["energies_weight", "energy_loss_ratio"],
    "stress_weight": ["stresses_weight", "stress_loss_ratio", "virials_weight", "virial_weight"],
    "loss": ["criterion"],
    "max_gradient_norm": ["clip_grad", "max_grad_norm", "gradient_clip_val"],
    "ema_decay": ["ema"],
    "dtype": ["default_dtype", "precision"],
    "atom_energies": ["E0s", "atomic_energies", "atom_references"],
    "channels": ["num_channels"],
    "layers": ["num_interactions", "num_layers", "n_layers"],
    "cutoff_A": ["r_max", "cutoff"],
    "min_finetune_ratio": ["real_pt_data_ratio_threshold", "weight_pt_head"],
    "parent": ["foundation_model"],
    "head": ["foundation_head"],
    "strategy": ["multiheads_finetuning", "lora"],
    "valid_fraction": ["val_fraction", "validation_fraction"],
}
# the same of what is no key of a potential or its training: section and key
ELSEWHERE = {
    "valid_fraction": ("datasets", "valid_fraction"),
    "val_fraction": ("datasets", "valid_fraction"),
    "validation_fraction": ("datasets", "valid_fraction"),
    "test_fraction": ("datasets", "test_fraction"),
    "train_file": ("datasets", "labels.source"),
    "valid_file": ("datasets", "valid_fraction"),
    "test_file": ("test_sets", "source"),
    "pt_train_file": ("replay", "source"),
    "pt_valid_file": ("replay", "valid_fraction"),
    "num_samples_pt": ("replay", "frames"),
    "subselect_pt": ("replay", "select"),
    "filter_type_pt": ("replay", "elements"),
}
LOSSES = {"mace": ("mse", "universal"), "chgnet": ("mse", "huber")}
REPLAYING = ("replay", "pseudolabel-replay", "mixed-replay")
WEIGHTS = ("energy_weight", "force_weight", "stress_weight")
# keys of a potential itself that a grid may have as axes; all others are settings of its training
OWN_AXES = ("train_frames", "replay_frames", "replay", "strategy", "parent", "dataset", "seed")


def other_names(word):
    """Return our names of what somebody may call by this word."""
    keys = [key for key, words in SYNONYMS.items() if str(word).lower() in map(str.lower, words)]
    return [*keys, *ELSEWHERE.get(str(word), ())[1:]]


def said_elsewhere(word):
    """Say which section has what somebody looks for in a potential or its training, or None."""
    return "see section {}: {}".format(*ELSEWHERE[word]) if word in ELSEWHERE else None


def expand_grids():
    """Put a potential in the place of each point of a grid: `grid` holds a name and lists of values by key."""
    potentials = config.get("potentials") or {}
    for base, entry in list(potentials.items()):
        if isinstance(entry, dict) and "grid" in entry:
            del potentials[base]
            for name, point in points_of(f"potentials.{base}.grid", entry):
                if name in potentials:
                    refuse(f"potentials.{base}.grid.name", f"gives {name!r} more than once: name each axis in it")
                potentials[name], GRID_OF[name] = point, base


def points_of(key, entry):
    """Yield name and potential of each point of a grid."""
    axes = dict(entry["grid"]) if isinstance(entry["grid"], dict) else {}
    template = axes.pop("name", None)
    known = axes_known()
    for axis in axes:
        if axis not in known:
            refuse(f"{key}.{axis}", f"no such axis; {said_elsewhere(axis) or nearest(axis, known)}")
    if not isinstance(template, str) or not axes or not all(isinstance(values, list) for values in axes.values()):
        refuse(key, "needs a name such as 'lif-{train_frames}' and at least one list of values")
    strategies = [*dict.fromkeys(itertools.chain(*read_presets("training").values()))]
    for strategy in axes.get("strategy", []):
        check_reference(f"{key}.strategy", strategy, strategies)
    points = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        try:
            name = template.format(**{axis: spelt(value) for axis, value in point.items()})
        except (KeyError, IndexError, ValueError, AttributeError):
            refuse(f"{key}.name", f"{template!r} may hold {', '.join(f'{{{axis}}}' for axis in axes)}")
        if "weights" in point and not (isinstance(point["weights"], list) and len(point["weights"]) == len(WEIGHTS)):
            refuse(f"{key}.weights", f"{point['weights']!r} is not energy, force and stress weight, as in [1, 10, 1]")
        potential = with_point({k: copy.deepcopy(v) for k, v in entry.items() if k != "grid"}, point, axes)
        for other in points:
            if other != name and points[other] == potential:
                refuse(key, f"{other} and {name} are the same training: {why_same(potential, axes)}")
        points[name] = potential
        yield name, potential


def why_same(potential, axes):
    """Say what to do about two points of a grid that are one potential."""
    replay_axes = [axis for axis in ("replay", "replay_frames") if axis in axes]
    if not replay_axes or potential.get("strategy") in REPLAYING:
        return "give each value once"
    without = " and ".join(replay_axes)
    return f"strategy {potential.get('strategy')} replays nothing, give it an entry of its own without {without}"


def axes_known():
    """Return what a grid may vary: a potential's own keys, its three weights together, any setting of a training."""
    ways = [settings for family in read_presets("training").values() for settings in family.values()]
    return [*OWN_AXES, "weights", *dict.fromkeys(name for settings in ways for name in settings), "atom_energies"]


def spelt(value):
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def with_point(potential, point, axes):
    """Return a potential with the values of a grid's point: its own keys, else settings of its training.

    Nothing to replay is a plain fine-tuning; of strategies side by side those that replay nothing have no replay set.
    """
    for axis, value in point.items():
        if axis in OWN_AXES:
            potential[axis] = value
        elif axis == "weights":
            potential.setdefault("training", {}).update(zip(WEIGHTS, value, strict=True))
        else:
            potential.setdefault("training", {})[axis] = value
    if potential.get("replay_frames") == 0 and potential.get("strategy") in REPLAYING:
        potential["strategy"] = "naive"
    beside = any(strategy in REPLAYING for strategy in axes.get("strategy", []))
    replays_nothing = potential.get("replay_frames") == 0 or beside
    if replays_nothing and potential.get("strategy") not in REPLAYING:
        potential.pop("replay", None)
        potential.pop("replay_frames", None)
        if isinstance(potential.get("training"), dict):
            potential["training"].pop("min_finetune_ratio", None)
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
    if strategy == "scratch" and "parent" in potential:
        refuse(f"{key}.parent", "strategy scratch has no parent")
    if strategy != "scratch" and "parent" not in potential:
        refuse(f"{key}.parent", f"strategy {strategy} needs a parent; {parents_for(name, family)}")
    if strategy in REPLAYING and "replay" not in potential:
        remedy = "" if config["replay"] else ": add a section replay"
        refuse(f"{key}.replay", f"strategy {strategy} needs a replay set; {there_is(config['replay'])}{remedy}")
    if strategy not in REPLAYING and "replay" in potential:
        refuse(f"{key}.replay", f"strategy {strategy} replays nothing")
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
            refuse(f"{key}.weights", f"{family} has no weights {weights!r}; {nearest_weights(weights, family)}")
    if family == "mace" and weights in SHIPPED["mace"]:
        check_foundation(key, potential)
    if family != "mace" and ("head" in potential or "sha256" in potential):
        refuse(key, f"head and sha256 are for MACE's weights; {family}'s are in its package")


def foundations_called(weights):
    """Return the foundation models of MACE that have this name elsewhere, as mace-mpa-0-medium: medium-mpa-0."""
    # mp0 is mp-0
    words = re.sub("([a-z])([01])", r"\1-\2", weights.lower().replace("_", "-").removesuffix(".model")).split("-")
    line = "-".join(word for word in words if word not in ("mace", *SIZES)).removesuffix("-0")
    models = FOUNDATIONS.get(line, [])
    sizes = [size for size in SIZES if size in words]
    return [model for model in models if model.startswith(tuple(sizes))] or models


def nearest_weights(weights, family):
    """Say which weights may have been meant."""
    if family != "mace":
        return nearest(weights, SHIPPED[family])
    known = foundations_called(weights)
    if known:
        return f"did you mean {' or '.join(map(repr, known))}?"
    if weights.endswith(MODEL_FILES) or os.path.exists(weights):
        return f"of a file write the folder too: ./{weights}"
    return f"{nearest(weights, SHIPPED[family])}; or a path with a / in it"


def parents_for(name, family):
    """Say which potentials of a family another may start from."""
    kin = [other for other, entry in config["potentials"].items() if other != name and entry["family"] == family]
    example = f"universal: {{family: {family}, weights: {EXAMPLES[family]}}}"
    return there_is(kin) if kin else f"there is none of family {family}: add {example} to potentials"


def nearest_parent(parent, name):
    """Say which potential a parent may have meant, or how what it names becomes one."""
    potentials, family = config["potentials"], config["potentials"][name]["family"]
    named = [other for other, entry in potentials.items() if entry.get("weights") == parent]
    if named:
        return f"did you mean {named[0]!r}, which has these weights?"
    is_file = family == "mace" and (os.sep in parent or parent.endswith(MODEL_FILES))
    others = [other for other in potentials if other != name]
    called = foundations_called(parent) if family == "mace" and closest(parent, others) is None else []
    if not (is_file or called or parent in SHIPPED[family]):
        return nearest(parent, others)
    if is_file:
        weights, own = parent if os.sep in parent else f"./{parent}", Path(parent).stem
    else:
        weights = parent if parent in SHIPPED[family] else called[0]
        own = weights if family == "mace" else f"{family}-{weights}"
    own = re.sub("[^A-Za-z0-9._-]", "-", own).lstrip("._-") or "universal"
    own += "-parent" if own in potentials else ""
    return f"make it a potential of its own: {own}: {{family: {family}, weights: {weights}}}, and write parent: {own}"


def check_sizes(key, potential):
    """Refuse more frames than are left to train on: about so many, since what is held out is whole trajectories."""
    name = potential["dataset"]
    dataset, replay = config["datasets"][name], config["replay"].get(potential.get("replay"))
    # precomputed: the test was held out before the picks; live: of what is labelled, however much that comes to be
    share = 1 - dataset["valid_fraction"] if dataset["labels"]["mode"] == "precomputed" else 1
    picked = dataset["direct"]["frames"]
    per_cluster = dataset["direct"]["per_cluster"]
    check_size(f"{key}.train_frames", potential, f"datasets.{name}.direct.frames", picked, share, per_cluster)
    if replay:
        share = 1 - replay["valid_fraction"] - replay["test_fraction"]
        check_size(
            f"{key}.replay_frames", potential, f"replay.{potential['replay']}.frames", replay["frames"], share, 1
        )


def check_size(key, potential, source, frames, share, multiple_of):
    """Refuse a number of frames of a potential that is more than this share of a source's."""
    wanted, left = potential.get(key.rpartition(".")[2], 0), round(frames * share)
    if wanted > left:
        about = f"about {left} are left to train on of {frames}" if left < frames else f"there are {frames}"
        refuse(key, f"{about}: raise {source} to {frames_for(wanted, share, multiple_of)}")


def frames_for(wanted, share, multiple_of):
    """Return a round number of frames of which a share is at least so many, with two standard deviations in reserve."""
    # share * n - 2 sqrt(share * (1 - share) * n) = wanted, solved for n
    frames = (math.sqrt(1 - share) + math.sqrt(1 - share + wanted)) ** 2 / share
    for step in (10 ** max(0, len(str(int(frames))) - 2), multiple_of):
        frames = math.ceil(frames / step) * step
    return frames


def check_foundation(key, potential):
    """Refuse what stands in the way of a foundation model that is fetched by its name."""
    if "foundations" in config["systems"]:
        refuse("systems.foundations", "results/foundations/ is where foundation models are kept: name it otherwise")
    alike = [entry for entry in config["potentials"].values() if entry.get("weights") == potential["weights"]]
    if len({entry["sha256"].lower() for entry in alike if "sha256" in entry}) > 1:
        refuse(f"{key}.sha256", f"other potentials give {potential['weights']} another one")


def check_ancestors(name, potential):
    """Refuse parents that are not there, of another family or system, or go round in a circle."""
    potentials, line = config["potentials"], [name]
    while "parent" in potentials[line[-1]]:
        parent = potentials[line[-1]]["parent"]
        if parent in line:
            refuse(f"potentials.{name}.parent", f"goes round in a circle: {' -> '.join([*line, parent])}")
        if parent not in potentials:
            remedy = nearest_parent(parent, line[-1])
            refuse(f"potentials.{line[-1]}.parent", f"{parent!r} is not there; {remedy}")
        line.append(parent)
    if len(line) > 1 and potentials[line[1]]["family"] != potential["family"]:
        why = f"{line[1]} is of another family ({potentials[line[1]]['family']}, not {potential['family']})"
        refuse(f"potentials.{name}.parent", f"{why}; {parents_for(name, potential['family'])}")
    system = config["datasets"][potential["dataset"]]["system"]
    for ancestor in line[1:]:
        theirs = config["datasets"].get(potentials[ancestor].get("dataset"), {}).get("system", system)
        if theirs != system:
            file = f"results/{theirs}/potentials/{ancestor}/trained.pt"
            why = f"{ancestor} is trained on labels of {theirs}, and {name} on those of {system}"
            remedy = f"once it is there, make its file {file} a potential of its own (weights), and that the parent"
            refuse(f"potentials.{name}.parent", f"{why}: {remedy}")


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
    if training["loss"] not in LOSSES[potential["family"]]:
        refuse(f"{key}.training.loss", f"{potential['family']} has {' and '.join(LOSSES[potential['family']])}")
    if potential["strategy"] in ("replay", "pseudolabel-replay") and training["loss"] != "universal":
        refuse(f"{key}.training.loss", "multi-head training has MACE's universal loss, whatever is asked for")
    if potential["family"] == "mace":
        labels = config["datasets"][potential["dataset"]]["labels"]
        isolated = "atom_references" in labels or labels["mode"] != "precomputed"
        training.setdefault("atom_energies", "isolated" if isolated else "estimated")
    check_batch(key, potential)


def check_batch(key, potential):
    """Refuse a batch that the labels do not fill; where replay frames are shuffled with them, they do."""
    batch_size, frames = potential["training"]["batch_size"], potential.get("train_frames", math.inf)
    if batch_size > frames and potential["strategy"] != "mixed-replay":
        refuse(f"{key}.training.batch_size", f"{batch_size} is more than train_frames: write {frames} or less")
