"""A wrong config is refused before any job, in seconds, with one line that names the key and the nearest right one."""

import re
from pathlib import Path

import pytest
import workflow_runs
import yaml

MAX_CPU_S = 5.0
"""Time of one process: on an idle machine it is the wall time, on a busy one it does not wait for others."""


def at(*path):
    """Return a function that sets one value of a config, or removes its key where no value is given."""

    def put(config, value=None):
        *folder, last = path
        for key in folder:
            config = config[key]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return put


def setting(*path, to):
    return lambda config: at(*path)(config, to)


def removing(*path):
    return at(*path)


def replayed(name, *, frames=1000, **settings):
    """Return a function that gives a potential a replay set of so many frames, and settings."""

    def change(config):
        config["replay"] = {"mptrj": {"source": "resources", "frames": frames}}
        config["potentials"][name].update({"replay": "mptrj"} | settings)
        # a grid takes the entry's own name away
        del config["dynamics"]["npt"]["volume_from_potential"]

    return change


FROM_NOTHING = {"family": "mace", "strategy": "naive", "dataset": "lif-direct"}

CASES = {
    "misspelt key": (
        setting("dynamics", "nvt", "durration_ps", to=1),
        "dynamics.nvt.durration_ps: no such key; did you mean 'duration_ps'?",
    ),
    "misspelt section": (setting("dinamics", to={}), "dinamics: no such key; did you mean 'dynamics'?"),
    "unknown potential": (
        setting("exploration", "potential", to="chgnt"),
        "exploration.potential: 'chgnt' is not there; did you mean 'chgnet'?",
    ),
    "unknown dataset": (
        setting("potentials", "mace", "dataset", to="lif-drect"),
        "potentials.mace.dataset: 'lif-drect' is not there; did you mean 'lif-direct'?",
    ),
    "unknown system": (
        setting("datasets", "lif-direct", "system", to="liff"),
        "datasets.lif-direct.system: 'liff' is not there; did you mean 'lif'?",
    ),
    "unknown family": (
        setting("potentials", "mace", "family", to="mce"),
        "potentials.mace.family: 'mce' is not known; did you mean 'mace'?",
    ),
    "unknown element": (
        setting("systems", "lif", "mobile", to="Lii"),
        "systems.lif.mobile: 'Lii' is not known; did you mean 'Li'?",
    ),
    "unknown prototype": (
        setting("systems", "lif", "host", "prototype", to="rock-salt"),
        "systems.lif.host.prototype: 'rock-salt' is not known; did you mean 'rocksalt'?",
    ),
    "unknown parent": (
        setting("potentials", "chgnet-ft", "parent", to="chgnt"),
        "potentials.chgnet-ft.parent: 'chgnt' is not there; did you mean 'chgnet'?",
    ),
    "missing parent": (
        removing("potentials", "chgnet-ft", "parent"),
        "potentials.chgnet-ft.parent: strategy naive needs a parent; there is chgnet",
    ),
    "missing dataset": (
        removing("potentials", "mace", "dataset"),
        "potentials.mace.dataset: strategy scratch needs a dataset",
    ),
    "shipped and trained": (
        setting("potentials", "mace", "weights", to="0.3.0"),
        "potentials.mace: needs either weights",
    ),
    "missing source": (
        removing("datasets", "lif-direct", "labels", "source"),
        "datasets.lif-direct.labels.source: mode precomputed needs",
    ),
    "unknown volume": (
        setting("dynamics", "npt", "volume_from", to="bulkk"),
        "dynamics.npt.volume_from: system lif has no composition 'bulkk' (did you mean 'bulk'?)",
    ),
    "unknown composition": (
        setting("potentials", "mace", "compositions", to=["Li2"]),
        "potentials.mace.compositions: 'Li2' is not there; did you mean 'Li1'?",
    ),
    "negative temperature": (
        setting("systems", "lif", "temperatures_K", to=[-700]),
        "systems.lif.temperatures_K.0: -700: must be more than 0",
    ),
    "frames amid a timestep": (
        setting("dynamics", "production", "frame_interval_fs", to=5),
        "dynamics.production.frame_interval_fs: 5 is no whole number of timesteps (2): take 4 or 6",
    ),
    "a run without a frame": (
        setting("exploration", "duration_ps", to=0.001),
        "exploration.duration_ps: 0.001 ps is less than exploration.frame_interval_fs (4 fs)",
    ),
    "a potential's own run without a frame": (
        setting("potentials", "chgnet", "dynamics", "nvt_duration_ps", to=0.001),
        "potentials.chgnet.dynamics.nvt_duration_ps: 0.001 ps is less than dynamics.nvt.frame_interval_fs (10 fs)",
    ),
    "a hot run without a frame": (
        setting("stability", "hot_duration_ps", to=0.005),
        "stability.hot_duration_ps: 0.005 ps is less than dynamics.nvt.frame_interval_fs (10 fs)",
    ),
    "a timestep in ps": (
        setting("dynamics", "npt", "timestep_fs", to=0.001),
        "dynamics.npt.timestep_fs: 0.001: must be at least 0.01",
    ),
    "a pressure in Pa": (
        setting("dynamics", "npt", "pressure_GPa", to=101325),
        "dynamics.npt.pressure_GPa: 101325: must be at most 1000",
    ),
    "frames amid a timestep of the hot run": (
        setting("stability", "timestep_fs", to=3),
        "stability.timestep_fs: 3: dynamics.nvt.frame_interval_fs (10) is no whole number of it",
    ),
    "a thermostat of the other engine": (
        setting("dynamics", to={"engine": "ase", "nvt": {"thermostat": "nose-hoover"}}),
        "dynamics.nvt.thermostat: nose-hoover needs dynamics.engine: batched; engine ase has langevin",
    ),
    "a friction that nothing feels": (
        setting(
            "dynamics", "npt", to={"barostat": "stochastic-cell-rescaling", "barostat_friction_per_ps": 10}
        ),
        "dynamics.npt.barostat_friction_per_ps: barostat stochastic-cell-rescaling has none: leave it out",
    ),
    "misspelt batch": (
        setting("execution", to={"batch": "condition"}),
        "execution.batch: 'condition' is not known; did you mean 'conditions'?",
    ),
    "zero replicas": (
        setting("dynamics", "production", "replicas", to=0),
        "dynamics.production.replicas: 0: must be at least 1",
    ),
    "word for a number": (
        setting("dynamics", "nvt", "duration_ps", to="long"),
        "dynamics.nvt.duration_ps: 'long'",
    ),
    "half a host": (
        setting("systems", "lif", "host", to={"prototype": "rocksalt"}),
        "prototype, species and lattice_constants_A; or file",
    ),
    "no temperatures": (
        setting("systems", "lif", "temperatures_K", to=[]),
        "systems.lif.temperatures_K: []: number of entries must be at least 1",
    ),
    "temperature only a potential has": (
        setting("potentials", "chgnet", "temperatures_K", to=[900, 950]),
        "potentials.chgnet.temperatures_K: 950 is not in systems.lif.temperatures_K: add it there too",
    ),
    "no temperature left for a system": (
        lambda config: config["systems"].update(nacl=config["systems"]["lif"] | {"temperatures_K": [600]}),
        "potentials.chgnet.temperatures_K: none of them is in systems.nacl.temperatures_K",
    ),
    "volume of a composition another system lacks": (
        lambda config: config["systems"].update(nacl=config["systems"]["lif"] | {"compositions": {"Li1": 1}}),
        "dynamics.npt.volume_from: system nacl has no composition 'bulk'",
    ),
    "unknown preset of pw.x": (
        setting("datasets", "lif-direct", "labels", "espresso", to={"preset": "alghamdi-2025"}),
        "datasets.lif-direct.labels.espresso.preset: 'alghamdi-2025' is not there; did you mean 'alghamdi-2026'?",
    ),
    "a mesh and a spacing": (
        setting(
            "datasets",
            "lif-direct",
            "labels",
            "espresso",
            to={"kpoints": [1, 1, 1], "kpoint_spacing_per_A": 0.2},
        ),
        "datasets.lif-direct.labels.espresso.kpoint_spacing_per_A: kpoints is given too: keep one of them",
    ),
    "unknown preset of VASP": (
        setting(
            "datasets",
            "lif-direct",
            "labels",
            to={"mode": "vasp", "vasp": {"preset": "matpes", "potcars": "resources"}},
        ),
        "datasets.lif-direct.labels.vasp.preset: 'matpes' is not there; did you mean 'matpes-pbe'?",
    ),
    "pseudopotentials that are not there": (
        setting("datasets", "lif-direct", "labels", to={"mode": "espresso"}),
        "datasets.lif-direct.labels.espresso.pseudopotentials: pseudopotentials does not exist",
    ),
    "missing labels": (
        setting("datasets", "lif-direct", "labels", "source", to="resources/lif/lables.extxyz"),
        "lables.extxyz does not exist; did you mean 'resources/lif/labels.extxyz'?",
    ),
    "missing host": (
        setting("systems", "lif", "host", to={"file": "hosts/LiF.cif"}),
        "systems.lif.host.file: hosts/LiF.cif does not exist; nor does hosts/",
    ),
    "strategy of another family": (
        setting("potentials", "mace", "strategy", to="mixed-replay"),
        "potentials.mace.strategy: mixed-replay is not for mace; did you mean 'replay'?",
    ),
    "a fine-tuning of nothing": (
        setting("potentials", "mace", "strategy", to="lora"),
        (
            "potentials.mace.parent: strategy lora needs a parent; there is none of family mace: add universal: "
            "{family: mace, weights: medium-mpa-0} to potentials"
        ),
    ),
    "a replay without frames": (
        setting("potentials", "chgnet-ft", "strategy", to="mixed-replay"),
        "potentials.chgnet-ft.replay: strategy mixed-replay needs a replay set; there is none: add a section replay",
    ),
    "frames for what replays nothing": (
        setting("potentials", "chgnet-ft", "replay_frames", to=10),
        "potentials.chgnet-ft.replay_frames: strategy naive replays nothing",
    ),
    "a setting that does nothing": (
        setting("potentials", "mace", "training", "lora_rank", to=4),
        "potentials.mace.training.lora_rank: does nothing for strategy scratch of mace",
    ),
    "training of what is taken as it is": (
        setting("potentials", "chgnet", "train_frames", to=10),
        "potentials.chgnet.train_frames: is about a training, and this potential is taken as it is",
    ),
    "weights of MACE that nobody knows": (
        setting("potentials", "mpa", to={"family": "mace", "weights": "medium-mpa-1"}),
        "potentials.mpa.weights: mace has no weights 'medium-mpa-1'; did you mean 'medium-mpa-0'?; or a path",
    ),
    "weights of MACE that are not there": (
        setting("potentials", "mpa", to={"family": "mace", "weights": "resources/lif/labels.model"}),
        "potentials.mpa.weights: resources/lif/labels.model does not exist; did you mean",
    ),
    "a system in the place of the foundation models": (
        lambda config: config.update(
            systems=config["systems"] | {"foundations": config["systems"]["lif"]},
            potentials=config["potentials"] | {"mpa": {"family": "mace", "weights": "medium-mpa-0"}},
        ),
        "systems.foundations: results/foundations/ is where foundation models are kept",
    ),
    "two hashes of one foundation model": (
        lambda config: config["potentials"].update(
            {
                name: {"family": "mace", "weights": "medium-mpa-0", "sha256": 32 * digits}
                for name, digits in (("one", "ab"), ("two", "cd"))
            }
        ),
        "potentials.one.sha256: other potentials give medium-mpa-0 another one",
    ),
    "a head of what has none": (
        setting("potentials", "chgnet", "head", to="pbe"),
        "potentials.chgnet: head and sha256 are for MACE's weights; chgnet's are in its package",
    ),
    "a hash of what is trained": (
        setting("potentials", "mace", "sha256", to=64 * "0"),
        "potentials.mace.sha256: is about weights that are fetched, and this potential is trained",
    ),
    "more training frames than are picked": (
        setting("potentials", "mace", "train_frames", to=97),
        (
            "potentials.mace.train_frames: about 82 are left to train on of 96: raise "
            "datasets.lif-direct.direct.frames to 130"
        ),
    ),
    "more training frames than validation leaves": (
        setting("potentials", "mace", "train_frames", to=83),
        "potentials.mace.train_frames: about 82 are left to train on of 96: raise",
    ),
    "a raise that the clusters divide": (
        lambda config: (
            config["datasets"]["lif-direct"]["direct"].update(per_cluster=4),
            config["potentials"]["mace"].update(train_frames=97),
        ),
        "raise datasets.lif-direct.direct.frames to 132",
    ),
    "a batch that the labels do not fill": (
        setting("potentials", "mace", "train_frames", to=4),
        "potentials.mace.training.batch_size: 5 is more than train_frames: write 4 or less",
    ),
    "more replay frames than there are": (
        lambda config: config.update(
            replay={"mptrj": {"source": "resources", "frames": 50}},
            potentials=config["potentials"]
            | {
                "chgnet-ft": config["potentials"]["chgnet-ft"]
                | {"strategy": "mixed-replay", "replay": "mptrj", "replay_frames": 51}
            },
        ),
        "potentials.chgnet-ft.replay_frames: about 40 are left to train on of 50: raise replay.mptrj.frames to 73",
    ),
    "all frames of a replay set to train on": (
        replayed("chgnet-ft", frames=1000, strategy="mixed-replay", replay_frames=1000),
        "potentials.chgnet-ft.replay_frames: about 800 are left to train on of 1000: raise replay.mptrj.frames to 1300",
    ),
    "a replay set that is not said": (
        lambda config: (
            replayed("chgnet-ft", strategy="mixed-replay")(config),
            config["potentials"]["chgnet-ft"].pop("replay"),
        ),
        "potentials.chgnet-ft.replay: strategy mixed-replay needs a replay set; there is mptrj",
    ),
    "a replay set of a grid too small for one point": (
        replayed(
            "chgnet-ft",
            frames=100,
            grid={"name": "pt{replay_frames}.x", "replay_frames": [0, 10, 100]},
            strategy="mixed-replay",
        ),
        "potentials.pt100.x.replay_frames (of grid chgnet-ft): about 80 are left to train on of 100",
    ),
    "points that are one training": (
        replayed(
            "chgnet-ft",
            grid={
                "name": "{strategy}{replay_frames}",
                "strategy": ["mixed-replay", "naive"],
                "replay_frames": [10, 20],
            },
        ),
        (
            "potentials.chgnet-ft.grid: naive10 and naive20 are the same training: strategy naive replays nothing, "
            "give it an entry of its own without replay_frames"
        ),
    ),
    "a value of a grid twice": (
        setting("potentials", "mace", "grid", to={"name": "m{train_frames}", "train_frames": [10, 10.0]}),
        "potentials.mace.grid: m10 and m10.0 are the same training: give each value once",
    ),
    "a replay set for strategies of which none replays": (
        replayed("chgnet-ft", grid={"name": "{strategy}", "strategy": ["naive", "frozen-embeddings"]}),
        "potentials.naive.replay (of grid chgnet-ft): strategy naive replays nothing",
    ),
    "a grid of a strategy that is misspelt": (
        replayed("chgnet-ft", grid={"name": "{strategy}", "strategy": ["naive", "mixd-replay"]}),
        "potentials.chgnet-ft.grid.strategy: 'mixd-replay' is not there; did you mean 'mixed-replay'?",
    ),
    "a grid whose names are no names": (
        setting("potentials", "mace", "grid", to={"name": "m {train_frames}", "train_frames": [10]}),
        "potentials.m 10 (of grid mace): a name may hold letters, digits, ., - and _ only",
    ),
    "a grid of what upstream calls otherwise": (
        setting("potentials", "mace", "grid", to={"name": "m{r_max}", "r_max": [4, 5]}),
        "potentials.mace.grid.r_max: no such axis; did you mean 'cutoff_A'?",
    ),
    "a grid of what is of another section": (
        setting("potentials", "mace", "grid", to={"name": "m{num_samples_pt}", "num_samples_pt": [4]}),
        "potentials.mace.grid.num_samples_pt: no such axis; see section replay: frames",
    ),
    "a potential with a slash": (
        lambda config: config["potentials"].update({"mace/2": config["potentials"]["mace"]}),
        "potentials.mace/2: a name may hold letters, digits, ., - and _ only, a letter or digit first",
    ),
    "a composition with a space": (
        setting("systems", "lif", "compositions", "Li 1", to=1),
        "systems.lif.compositions.Li 1: a name may hold letters, digits, ., - and _ only",
    ),
    "nothing to explore with": (
        lambda config: (
            (
                config["potentials"].pop("chgnet-ft"),
                config["potentials"].pop("chgnet"),
                config.pop("exploration"),
            )
            and config["potentials"].update(my={"family": "mace", "weights": "medium-mpa-0"})
        ),
        "exploration.potential: 'chgnet' is not there; there is my: write exploration: {potential: my}",
    ),
    "nothing that can explore": (
        lambda config: (
            config["potentials"].pop("chgnet-ft"),
            config["potentials"].pop("chgnet"),
            config.pop("exploration"),
        ),
        (
            "exploration.potential: 'chgnet' is not there; there is none that is taken as it is: add chgnet: {family: "
            'chgnet, weights: "0.3.0"} to potentials'
        ),
    ),
    "a parent that is not there and is like the entry": (
        setting("potentials", "mace", to=FROM_NOTHING | {"parent": "macee"}),
        "potentials.mace.parent: 'macee' is not there; there is chgnet, chgnet-ft",
    ),
    "a parent by its file": (
        setting("potentials", "mace", to=FROM_NOTHING | {"parent": "models/my.model"}),
        (
            "potentials.mace.parent: 'models/my.model' is not there; make it a potential of its own: my: {family: "
            "mace, weights: models/my.model}, and write parent: my"
        ),
    ),
    "a parent by its file, named as the entry": (
        setting("potentials", "mace", to=FROM_NOTHING | {"parent": "mace.model"}),
        "a potential of its own: mace-parent: {family: mace, weights: ./mace.model}, and write parent: mace-parent",
    ),
    "a parent by the name of its weights": (
        setting("potentials", "mace", to=FROM_NOTHING | {"parent": "medium-mpa-0"}),
        "make it a potential of its own: medium-mpa-0: {family: mace, weights: medium-mpa-0}, and write parent: medium",
    ),
    "a parent by the weights of an entry": (
        setting("potentials", "chgnet-ft", "parent", to="0.3.0"),
        "potentials.chgnet-ft.parent: '0.3.0' is not there; did you mean 'chgnet', which has these weights?",
    ),
    "a parent of another family": (
        setting("potentials", "mace", to=FROM_NOTHING | {"parent": "chgnet"}),
        "potentials.mace.parent: chgnet is of another family (chgnet, not mace); there is none of family mace",
    ),
    "weights in a file without its folder": (
        setting("potentials", "mpa", to={"family": "mace", "weights": "my.model"}),
        "potentials.mpa.weights: mace has no weights 'my.model'; of a file write the folder too: ./my.model",
    ),
    "weights of MACE like none": (
        setting("potentials", "mpa", to={"family": "mace", "weights": "x"}),
        (
            "mace has no weights 'x'; there is small, medium, large, small-0b, medium-0b, small-0b2, medium-0b2, "
            "large-0b2, medium-0b3, medium-mpa-0, small-omat-0, medium-omat-0, mace-matpes-pbe-0, "
            "mace-matpes-r2scan-0, mh-0, mh-1; or a path with a / in it"
        ),
    ),
    "a foundation model by its paper's name": (
        setting("potentials", "mpa", to={"family": "mace", "weights": "mace-mp-0"}),
        "potentials.mpa.weights: mace has no weights 'mace-mp-0'; did you mean 'small' or 'medium' or 'large'?",
    ),
    "a grid of half the weights": (
        setting("potentials", "mace", "grid", to={"name": "lif-{weights}", "weights": [[1, 10]]}),
        "potentials.mace.grid.weights: [1, 10] is not energy, force and stress weight",
    ),
    "a grid of a key that is misspelt": (
        setting("potentials", "mace", "grid", to={"name": "lif-{epoch}", "epoch": [10]}),
        "potentials.mace.grid.epoch: no such axis; did you mean 'epochs'?",
    ),
    "a grid of a potential's key that is misspelt": (
        setting("potentials", "mace", "grid", to={"name": "lif-{train_frame}", "train_frame": [10]}),
        "potentials.mace.grid.train_frame: no such axis; did you mean 'train_frames'?",
    ),
    "a grid of an abbreviation": (
        setting("potentials", "mace", "grid", to={"name": "lif-{lr}", "lr": [1.0e-2]}),
        "potentials.mace.grid.lr: no such axis; did you mean 'learning_rate'?",
    ),
    "a grid of numbers that YAML reads as text": (
        setting("potentials", "mace", "grid", to={"name": "m{learning_rate}", "learning_rate": ["1e-4"]}),
        "potentials.m1e-4.training.learning_rate (of grid mace): '1e-4' is text to YAML, not a number: write 1.0e-4 (",
    ),
    "an abbreviated setting": (
        setting("potentials", "mace", "training", "lr", to=1.0e-4),
        "potentials.mace.training.lr: no such key; did you mean 'learning_rate'?",
    ),
    "half a setting": (
        setting("potentials", "mace", "training", "batch", to=4),
        "potentials.mace.training.batch: no such key; did you mean 'batch_size'?",
    ),
    "a setting of the training beside it": (
        setting("potentials", "mace", "learning_rate", to=1.0e-4),
        "potentials.mace.learning_rate: no such key; did you mean 'training.learning_rate'?",
    ),
    "a potential's key in its training": (
        setting("potentials", "mace", "training", "train_frame", to=10),
        "potentials.mace.training.train_frame: no such key; did you mean 'potentials.mace.train_frames'?",
    ),
    "a whole number without its dot": (
        setting("potentials", "mace", "training", "learning_rate", to="5e-3"),
        "potentials.mace.training.learning_rate: '5e-3' is text to YAML, not a number: write 5.0e-3",
    ),
    "an exponent without its sign": (
        setting("dynamics", "limits", to={"max_force_eV_per_A": "1.5e2"}),
        "dynamics.limits.max_force_eV_per_A: '1.5e2' is text to YAML, not a number: write 1.5e+2",
    ),
    "a count as a power of ten": (
        setting("potentials", "mace", "training", "epochs", to="1e3"),
        "potentials.mace.training.epochs: '1e3' is text to YAML, not a number: write 1000",
    ),
    "a number in quotes": (
        setting("dynamics", "nvt", "timestep_fs", to="0.5"),
        "dynamics.nvt.timestep_fs: '0.5' is text to YAML, not a number: write 0.5",
    ),
    "what is no number at all": (
        setting("dynamics", "nvt", "timestep_fs", to="nan"),
        "dynamics.nvt.timestep_fs: 'nan' is not of type 'number'",
    ),
    "a grid without a name": (
        setting("potentials", "mace", "grid", to={"train_frames": [10, 20]}),
        "potentials.mace.grid: needs a name such as 'lif-{train_frames}'",
    ),
    "a grid whose names are one": (
        setting("potentials", "mace", "grid", to={"name": "lif", "train_frames": [10, 20]}),
        "potentials.mace.grid.name: gives 'lif' more than once",
    ),
    "a grid named by what it has not": (
        setting("potentials", "mace", "grid", to={"name": "lif-{size}", "train_frames": [10, 20]}),
        "potentials.mace.grid.name: 'lif-{size}' may hold {train_frames}",
    ),
    "weights that nobody ships": (
        setting("potentials", "chgnet", "weights", to="0.4.0"),
        "potentials.chgnet.weights: chgnet has no weights '0.4.0'; did you mean '0.3.0'?",
    ),
    "parents in a circle": (
        setting("potentials", "chgnet-ft", "parent", to="chgnet-ft"),
        "potentials.chgnet-ft.parent: goes round in a circle: chgnet-ft -> chgnet-ft",
    ),
    "parent trained in another system": (
        lambda config: (
            config["systems"].update(two=config["systems"]["lif"]),
            config["datasets"].update(other=config["datasets"]["lif-direct"] | {"system": "two"}),
            config["potentials"].update(
                child={"family": "mace", "strategy": "naive", "parent": "mace", "dataset": "other"}
            ),
        ),
        "potentials.child.parent: mace is trained on labels of lif, and child on those of two: once it is there",
    ),
    "loss of the other family": (
        setting("potentials", "mace", "training", "loss", to="huber"),
        "potentials.mace.training.loss: mace has mse and universal",
    ),
    "window that ends before it starts": (
        setting("diffusion", to={"fit_start_ps": 3, "fit_stop_ps": 2}),
        "diffusion.fit_start_ps: 3 must be less than fit_stop_ps (2)",
    ),
    "a replay set from nowhere": (
        setting("replay", to={"mptrj": {}}),
        "replay.mptrj: needs either source (files one has) or download (url and sha256)",
    ),
    "a replay set from two places": (
        setting(
            "replay",
            to={"mptrj": {"source": "resources", "download": {"url": "file:///a", "sha256": 64 * "0"}}},
        ),
        "replay.mptrj: needs either source",
    ),
    "a replay source that is not there": (
        setting("replay", to={"mptrj": {"source": "resources/lif/lables.extxyz"}}),
        "replay.mptrj.source: resources/lif/lables.extxyz does not exist; did you mean 'resources/lif/labels.extxyz'?",
    ),
    "half a hash": (
        setting("replay", to={"mptrj": {"download": {"url": "https://example.org/a", "sha256": "abc"}}}),
        "replay.mptrj.download.sha256: 'abc' is of another form (SHA-256 of its content, 64 hexadecimal digits)",
    ),
    "a pool smaller than what is selected from it": (
        setting("replay", to={"mptrj": {"source": "resources", "select": "direct", "pool_frames": 100}}),
        "replay.mptrj.pool_frames: must be frames (10000) or more",
    ),
    "a replay set without training frames": (
        setting("replay", to={"mptrj": {"source": "resources", "valid_fraction": 0.5, "test_fraction": 0.5}}),
        "replay.mptrj.valid_fraction: together with test_fraction leaves nothing to train on: lower one",
    ),
    "a system in the place of the replay sets": (
        lambda config: config.update(
            systems=config["systems"] | {"replay": config["systems"]["lif"]},
            replay={"mptrj": {"source": "resources"}},
        ),
        "systems.replay: results/replay/ is where replay sets are kept",
    ),
    "a test set of two kinds": (
        setting("test_sets", to={"hot": {"replay": "mptrj", "system": "lif", "source": "resources"}}),
        "test_sets.hot: needs either replay (a replay set), or system and source",
    ),
    "a test set of no kind": (setting("test_sets", to={"hot": {}}), "test_sets.hot: needs either replay"),
    "half a test set": (
        setting("test_sets", to={"hot": {"source": "resources"}}),
        "test_sets.hot.system: is missing",
    ),
    "a test set of an unknown system": (
        setting("test_sets", to={"hot": {"system": "liff", "source": "resources"}}),
        "test_sets.hot.system: 'liff' is not there; did you mean 'lif'?",
    ),
    "a test set that is not there": (
        setting("test_sets", to={"hot": {"system": "lif", "source": "resources/lif/lables.extxyz"}}),
        "test_sets.hot.source: resources/lif/lables.extxyz does not exist",
    ),
    "a test set of an unknown replay set": (
        setting("test_sets", to={"forgetting": {"replay": "mptrj"}}),
        "test_sets.forgetting.replay: 'mptrj' is not there",
    ),
    "a committee of one": (
        setting("committees", to={"one": {"members": ["mace"], "dataset": "lif-direct"}}),
        "committees.one.members: ['mace']: number of entries must be at least 2",
    ),
    "an unknown member": (
        setting("committees", to={"pair": {"members": ["mace", "mce"], "dataset": "lif-direct"}}),
        "committees.pair.members: 'mce' is not there; did you mean 'mace'?",
    ),
    "a member of another system": (
        lambda config: config.update(
            systems=config["systems"] | {"nacl": config["systems"]["lif"]},
            potentials=config["potentials"]
            | {"far": {"family": "chgnet", "weights": "0.3.0", "systems": ["nacl"]}},
            committees={"pair": {"members": ["mace", "far"], "dataset": "lif-direct"}},
        ),
        "committees.pair.members: far is not of system lif, whose dataset they are asked for",
    ),
    "a barrier below zero": (
        setting("stability", to={"min_barrier_eV": -1}),
        "stability.min_barrier_eV: -1: must be at least 0",
    ),
    "frames no multiple": (
        setting("datasets", "lif-direct", "direct", "per_cluster", to=7),
        "datasets.lif-direct.direct.frames: must be a multiple of per_cluster",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_config_is_refused_in_one_line(tree: Path, tmp_path, name):
    change, message = CASES[name]
    config = workflow_runs.write_config(tmp_path / "wrong.yaml", tree / "config" / "quickstart.yaml", change)
    started_s = workflow_runs.cpu_time_of_children_s()
    run = workflow_runs.snakemake(tree, "-n", "--configfile", str(config))
    spent_s = workflow_runs.cpu_time_of_children_s() - started_s
    assert run.status != 0
    lines = run.output.strip().splitlines()
    assert len(lines) == 1, run.output
    assert lines[0].startswith("config error: ")
    assert message in lines[0]
    # what the line says to write is a number to YAML
    for number in re.findall(r"not a number: write (\S+)", lines[0]):
        assert isinstance(yaml.safe_load(number), int | float)
    assert spent_s < MAX_CPU_S
    assert not (tree / "results").exists()


@pytest.fixture(scope="module")
def checks(repository: Path):
    """The names of the two rule files that check a config: plain Python, which needs no config to be read."""
    names = {}
    for file in ("checks", "training_checks"):
        # not a module: they see each other's names, as Snakemake includes them
        exec((repository / "rules" / f"{file}.smk").read_text(), names)  # noqa: S102
    return names


@pytest.fixture(scope="module")
def schema(repository: Path):
    return yaml.safe_load((repository / "config" / "schemas" / "config.schema.yaml").read_text())


# as mace_run_train and CHGNet's trainer spell them
@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("max_num_epochs", "epochs"), ("num_epochs", "epochs"), ("E0s", "atom_energies"), ("r_max", "cutoff_A"),
        ("forces_weight", "force_weight"), ("force_loss_ratio", "force_weight"), ("num_channels", "channels"),
        ("clip_grad", "max_gradient_norm"), ("ema", "ema_decay"), ("default_dtype", "dtype"),
        ("patience", "patience_epochs"), ("num_interactions", "layers"), ("lr", "learning_rate"),
    ],
)  # fmt: skip
def test_a_setting_under_another_name_is_told_ours(checks, schema, word, key):
    known = schema["$defs"]["training"]["properties"]
    for path in (["potentials", "mace", "training"], ["potentials", "mace"]):
        beside = known if path[2:] else schema["$defs"]["potential"]["properties"]
        place = "" if path[2:] else "training."
        assert checks["nearest_key"](path, word, beside, schema) == f"did you mean '{place}{key}'?"


def test_what_is_of_another_section_is_told_where_and_there_it_is(checks, schema):
    for word, (section, key) in checks["ELSEWHERE"].items():
        told = checks["nearest_key"](["potentials", "mace", "training"], word, {}, schema)
        assert told == f"see section {section}: {key}"
        place = schema["$defs"][{"datasets": "dataset", "test_sets": "test_set", "replay": "replay"}[section]]
        for name in key.split("."):
            place = place["properties"][name]
            place = schema["$defs"][place["$ref"].removeprefix("#/$defs/")] if "$ref" in place else place


def test_every_name_that_stands_for_another_leads_to_a_key(checks, schema):
    known = {
        name for one in ("training", "potential", "dataset") for name in schema["$defs"][one]["properties"]
    }
    assert set(checks["SYNONYMS"]) <= known
    words = [word.lower() for words in checks["SYNONYMS"].values() for word in words]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("spelt", "models"),
    {
        "mace-mp-0": "small medium large", "mace_mp": "small medium large", "mp-0": "small medium large",
        "mace-mp-0-medium": "medium", "mace-mp-0b3": "medium-0b3", "mace-mp-0b2-small": "small-0b2",
        "mace-mpa-0": "medium-mpa-0", "mace-mpa-0-medium": "medium-mpa-0", "MACE-MPA-0": "medium-mpa-0",
        "mpa0": "medium-mpa-0", "mace-mpa-0-medium.model": "medium-mpa-0", "omat": "small-omat-0 medium-omat-0",
        "mace-omat-0-medium": "medium-omat-0", "mace-matpes-r2scan": "mace-matpes-r2scan-0", "mace-mh-1": "mh-1",
        "chgnet": "",
    }.items(),
)  # fmt: skip
def test_a_foundation_model_under_another_name_is_told_mace_torch_s(checks, spelt, models):
    assert checks["foundations_called"](spelt) == models.split()
    assert set(models.split()) <= set(checks["SHIPPED"]["mace"])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.85, 0.98])
@pytest.mark.parametrize("wanted", [1, 30, 1000, 10000])
def test_a_number_of_frames_to_raise_to_is_enough_and_not_much_more(checks, wanted, share):
    """Each frame is kept by chance: two standard deviations are left over, and little but rounding beside."""
    frames = checks["frames_for"](wanted, share, multiple_of=4)
    fewer = max(0, frames - 4) / 1.1

    def surely_kept(n):
        return n * share - 2 * (n * share * (1 - share)) ** 0.5

    assert frames % 4 == 0
    assert surely_kept(frames) >= wanted > surely_kept(fewer)
