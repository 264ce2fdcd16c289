"""Potentials: fetch what ships, assemble datasets, train, and evaluate on held-out trajectories.

Makes datasets/{dataset}/{train,valid,test}.extxyz with dataset.json, and potentials/{potential}/ with the model file,
card.json, training.csv, evaluation.json, evaluations/{test_set}.json and stability.json (a gate before the dynamics);
test_sets/{test_set}.extxyz, and committees/{committee}.json. Foundation models that are fetched by name are kept in
foundations/{foundation}.model, once for all systems.
"""


def stack_of(potential):
    """Return the environment of a potential's family, for those who run with conda."""
    return f"../envs/{config['potentials'][potential]['family']}-cuda.yaml"


def atom_references_of(wildcards):
    """Return the isolated atoms of a dataset: the file that the config names, or those computed with its labels."""
    computed = f"results/{wildcards.system}/labels/{wildcards.dataset}/atom_references.json"
    named = config["datasets"][wildcards.dataset]["labels"].get("atom_references")
    return named or (computed if is_live(wildcards.dataset) else [])


def published_split(wildcards):
    """Return the files of somebody's data set where there are several: they may be its split, which may leak."""
    sources = [] if is_live(wildcards.dataset) else sources_of(wildcards.dataset)
    return sources if len(sources) > 1 and all(map(os.path.isfile, sources)) else []


def foundation_of(wildcards):
    """Return the model file that a potential is taken from: fetched by its name, or the user's own."""
    weights = config["potentials"][wildcards.potential]["weights"]
    if config["potentials"][wildcards.potential]["family"] != "mace":
        return []
    return f"results/foundations/{weights}.model" if weights in SHIPPED["mace"] else weights


def hash_of(wildcards):
    """Spell the hash that a potential of the config gives a foundation model; the checks saw to it that they agree."""
    entries = [entry for entry in config["potentials"].values() if entry.get("weights") == wildcards.foundation]
    return next((as_flags(entry, "sha256") for entry in entries if "sha256" in entry), "")


rule fetch_foundation:
    input:
        script=script("fetch_foundation"),
    output:
        # a file that somebody put there may be older than the script, and is not to be deleted for it
        foundation=update("results/foundations/{foundation}.model"),
    log:
        "logs/fetch_foundation/{foundation}.log",
    wildcard_constraints:
        foundation=one_of(SHIPPED["mace"]),
    # nodes of a cluster often have no network, its login node has
    localrule: True
    conda:
        "../envs/mace-cuda.yaml"
    params:
        flags=hash_of,
    shell:
        "python {input.script:q}"
        " --weights {wildcards.foundation:q}"
        " {params.flags}"
        " --foundation {output.foundation:q}"
        " > {log:q} 2>&1"


def shipped_flags(wildcards):
    """Spell what a potential is taken from, and the head and the hash where they are given."""
    entry = config["potentials"][wildcards.potential]
    return as_flags(entry, *(name for name in ("family", "weights", "head", "sha256") if name in entry))


# no network and a model to be opened and computed with: a job like others, on a cluster's nodes
rule fetch_potential:
    input:
        script=script("fetch_potential"),
        foundation=foundation_of,
    output:
        card="results/{system}/potentials/{potential}/card.json",
        model="results/{system}/potentials/{potential}/shipped.pt",
    log:
        "logs/fetch_potential/{system}/{potential}.log",
    wildcard_constraints:
        potential=one_of(set(config["potentials"]) - set(TRAINED)),
    conda:
        lambda w: stack_of(w.potential)
    params:
        flags=shipped_flags,
        inputs=input_flags("foundation"),
    shell:
        "python {input.script:q}"
        " --name {wildcards.potential:q}"
        " {params.flags}"
        " {params.inputs}"
        " --model {output.model:q}"
        " --card {output.card:q}"
        " > {log:q} 2>&1"


rule assemble_dataset:
    input:
        script=script("assemble_dataset"),
        candidates="results/{system}/labels/{dataset}/candidates.extxyz",
        held_out="results/{system}/labels/{dataset}/held_out.extxyz",
        # a live dataset trains on all that was labelled; a precomputed one on DIRECT's picks
        selection=lambda w: [] if is_live(w.dataset) else f"results/{w.system}/sampling/{w.dataset}/selection.csv",
        atom_references=atom_references_of,
        published=published_split,
    output:
        train="results/{system}/datasets/{dataset}/train.extxyz",
        valid="results/{system}/datasets/{dataset}/valid.extxyz",
        test="results/{system}/datasets/{dataset}/test.extxyz",
        dataset="results/{system}/datasets/{dataset}/dataset.json",
    log:
        "logs/assemble_dataset/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        inputs=input_flags("selection", "atom_references", "published"),
        flags=lambda w: as_flags(config["datasets"][w.dataset], "valid_fraction", "gap_frames"),
        published_format=lambda w: config["datasets"][w.dataset]["labels"]["format"],
        seed=lambda w: seed("validation", w.dataset),
    shell:
        "python {input.script:q}"
        " --candidates {input.candidates:q}"
        " --held-out {input.held_out:q}"
        " {params.inputs}"
        " --published-format {params.published_format:q}"
        " {params.flags}"
        " --seed {params.seed}"
        " --train {output.train:q}"
        " --valid {output.valid:q}"
        " --test {output.test:q}"
        " --dataset {output.dataset:q}"
        " > {log:q} 2>&1"


def parent_of(wildcards):
    parent = config["potentials"][wildcards.potential].get("parent")
    return f"results/{wildcards.system}/potentials/{parent}/card.json" if parent else []


def replay_of(wildcards, name):
    replay = config["potentials"][wildcards.potential].get("replay")
    return f"results/replay/{replay}/{name}" if replay else []


def training_flags(wildcards):
    """Spell what a training is, and its settings."""
    entry = config["potentials"][wildcards.potential]
    given = [name for name in ("family", "strategy", "train_frames", "replay_frames") if name in entry]
    return f"{as_flags(entry, *given)} {as_flags(entry['training'])}"


def dataset_of(wildcards, name):
    return f"results/{wildcards.system}/datasets/{config['potentials'][wildcards.potential]['dataset']}/{name}"


def training_seed(wildcards):
    own = config["potentials"][wildcards.potential].get("seed")
    return seed("train", wildcards.potential, *([] if own is None else [str(own)]))


rule finetune_potential:
    input:
        script=script("finetune_potential"),
        parent=parent_of,
        train=lambda w: dataset_of(w, "train.extxyz"),
        valid=lambda w: dataset_of(w, "valid.extxyz"),
        test=lambda w: dataset_of(w, "test.extxyz"),
        dataset=lambda w: dataset_of(w, "dataset.json"),
        replay=lambda w: replay_of(w, "train.extxyz"),
        replay_valid=lambda w: replay_of(w, "valid.extxyz"),
    output:
        model="results/{system}/potentials/{potential}/trained.pt",
        card="results/{system}/potentials/{potential}/card.json",
        training="results/{system}/potentials/{potential}/training.csv",
    log:
        "logs/finetune_potential/{system}/{potential}.log",
    wildcard_constraints:
        potential=one_of(TRAINED),
    # whatever a trained potential is for waits for it
    priority: 10
    conda:
        lambda w: stack_of(w.potential)
    # small cells gain little from a second thread, two trainings side by side more; a profile's set-threads gives others
    threads: 1
    resources:
        gpu=1,
    params:
        flags=training_flags,
        inputs=input_flags("parent", "replay", "replay_valid"),
        # no output: Snakemake deletes those of a killed job, and the next attempt goes on from here
        work="results/{system}/potentials/{potential}/work",
        seed=training_seed,
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --name {wildcards.potential:q}"
        " {params.flags}"
        " {params.inputs}"
        " --train {input.train:q}"
        " --valid {input.valid:q}"
        " --test {input.test:q}"
        " --dataset {input.dataset:q}"
        " --seed {params.seed}"
        " --work {params.work:q}"
        " --model {output.model:q}"
        " --card {output.card:q}"
        " --training {output.training:q}"
        " > {log:q} 2>&1"


def tested_on(potential, system):
    """Return the dataset whose held-out trajectories test a potential: its own, else the system's first, or None."""
    return config["potentials"][potential].get("dataset") or next(iter(datasets_of(system)), None)


def trained_on(wildcards):
    """Return the frames that a potential and its parents have seen: of trainings here, and what the config says."""
    seen, name = [], wildcards.potential
    while name:
        entry = config["potentials"][name]
        folders = [f"results/{wildcards.system}/datasets/{entry['dataset']}"] if "dataset" in entry else []
        folders += [f"results/replay/{entry['replay']}"] if "replay" in entry else []
        seen += [f"{folder}/{part}.extxyz" for folder in folders for part in ("train", "valid")]
        seen += listed(entry.get("trained_on", []))
        name = entry.get("parent")
    return list(dict.fromkeys(seen))


rule evaluate_potential:
    input:
        script=script("evaluate_potential"),
        potential="results/{system}/potentials/{potential}/card.json",
        test=lambda w: f"results/{w.system}/datasets/{tested_on(w.potential, w.system)}/test.extxyz",
        trained_on=trained_on,
    output:
        evaluation="results/{system}/potentials/{potential}/evaluation.json",
        predictions="results/{system}/potentials/{potential}/predictions.csv",
    log:
        "logs/evaluate_potential/{system}/{potential}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        mobile=lambda w: config["systems"][w.system]["mobile"],
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --potential {input.potential:q}"
        " --test {input.test:q}"
        " --trained-on {input.trained_on:q}"
        " --mobile {params.mobile:q}"
        " --evaluation {output.evaluation:q}"
        " --predictions {output.predictions:q}"
        " > {log:q} 2>&1"


def test_set_sources(wildcards):
    return listed(config["test_sets"][wildcards.test_set]["source"])


def frames_of_test_set(wildcards):
    """Return the frames of a further test set: what a replay set held out, or somebody's labels."""
    replay = config["test_sets"][wildcards.test_set].get("replay")
    own = f"results/{wildcards.system}/test_sets/{wildcards.test_set}.extxyz"
    return f"results/replay/{replay}/test.extxyz" if replay else own


use rule ingest_labels as ingest_test_set with:
    input:
        script=script("ingest_labels"),
        sources=test_set_sources,
        host=lambda w: config["systems"][w.system]["host"].get("file", []),
    output:
        frames="results/{system}/test_sets/{test_set}.extxyz",
        rejected="results/{system}/test_sets/{test_set}.rejected.csv",
    log:
        "logs/ingest_test_set/{system}/{test_set}.log",
    params:
        sources=lambda w: shlex.join(test_set_sources(w)),
        flags=lambda w: as_flags(
            config["test_sets"][w.test_set],
            *(name for name in sorted(config["test_sets"][w.test_set]) if name not in ("system", "source")),
        ),
        elements=elements_of,
        host=input_flags("host"),


use rule evaluate_potential as evaluate_on_test_set with:
    input:
        script=script("evaluate_potential"),
        potential="results/{system}/potentials/{potential}/card.json",
        test=frames_of_test_set,
        trained_on=trained_on,
    output:
        evaluation="results/{system}/potentials/{potential}/evaluations/{test_set}.json",
        predictions="results/{system}/potentials/{potential}/evaluations/{test_set}.csv",
    log:
        "logs/evaluate_on_test_set/{system}/{potential}/{test_set}.log",


rule evaluate_stability:
    input:
        script=script("evaluate_stability"),
        potential="results/{system}/potentials/{potential}/card.json",
        train=lambda w: dataset_of(w, "train.extxyz"),
    output:
        stability="results/{system}/potentials/{potential}/stability.json",
        scan="results/{system}/potentials/{potential}/stability.csv",
    log:
        "logs/evaluate_stability/{system}/{potential}.log",
    wildcard_constraints:
        potential=one_of(TRAINED),
    priority: 10
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        flags=as_flags({name: value for name, value in config["stability"].items() if name != "hot_temperature_ratio"}),
        temperature_K=lambda w: (
            config["stability"]["hot_temperature_ratio"] * max(config["systems"][w.system]["temperatures_K"])
        ),
        thermostat=as_flags(config["dynamics"]["nvt"], "frame_interval_fs", "friction_per_ps"),
        limits=as_flags(config["dynamics"]["limits"]),
        seed=lambda w: seed("stability", w.potential),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --potential {input.potential:q}"
        " --train {input.train:q}"
        " {params.flags}"
        " --hot-temperature-K {params.temperature_K:g}"
        " {params.thermostat}"
        " {params.limits}"
        " --seed {params.seed}"
        " --stability {output.stability:q}"
        " --scan {output.scan:q}"
        " > {log:q} 2>&1"


def fit_to_run(wildcards):
    """Return what says that a potential may be run: shipped ones need no leave. Dynamics waits for it, reads nothing."""
    stability = f"results/{wildcards.system}/potentials/{wildcards.potential}/stability.json"
    return ancient(stability) if wildcards.potential in TRAINED else []


rule evaluate_committee:
    input:
        script=script("evaluate_committee"),
        potentials=lambda w: [
            f"results/{w.system}/potentials/{member}/card.json"
            for member in config["committees"][w.committee]["members"]
        ],
        frames=lambda w: f"results/{w.system}/datasets/{config['committees'][w.committee]['dataset']}/test.extxyz",
    output:
        committee="results/{system}/committees/{committee}.json",
        deviations="results/{system}/committees/{committee}.csv",
    log:
        "logs/evaluate_committee/{system}/{committee}.log",
    # members may be of several families
    conda:
        "../envs/hopline.yaml"
    resources:
        gpu=1,
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --potential {input.potentials:q}"
        " --frames {input.frames:q}"
        " --committee {output.committee:q}"
        " --deviations {output.deviations:q}"
        " > {log:q} 2>&1"
