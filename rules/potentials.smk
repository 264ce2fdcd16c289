"""Potentials: fetch what ships, assemble datasets, train, and evaluate on held-out trajectories.

Makes datasets/{dataset}/{train,valid,test}.extxyz with dataset.json, and potentials/{potential}/ with the model file,
card.json, training.csv and evaluation.json.
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


def optional_flags(wildcards, input):
    """Spell the inputs of a dataset that not every dataset has."""
    inputs = {"selection": input.selection, "atom-references": input.atom_references, "published": input.published}
    paths = {name: [value] if isinstance(value, str) else list(value) for name, value in inputs.items()}
    flags = [shlex.join([f"--{name}", *values]) for name, values in paths.items() if values]
    if paths["published"]:
        flags.append(shlex.join(["--published-format", config["datasets"][wildcards.dataset]["labels"]["format"]]))
    return " ".join(flags)


rule fetch_potential:
    input:
        script=script("fetch_potential"),
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
        flags=lambda w: as_flags(config["potentials"][w.potential], "family", "weights"),
    shell:
        "python {input.script:q}"
        " --name {wildcards.potential:q}"
        " {params.flags}"
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
        optional=optional_flags,
        flags=lambda w: as_flags(config["datasets"][w.dataset], "valid_fraction", "gap_frames"),
        seed=lambda w: seed("validation", w.dataset),
    shell:
        "python {input.script:q}"
        " --candidates {input.candidates:q}"
        " --held-out {input.held_out:q}"
        " {params.optional}"
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


def dataset_of(wildcards, name):
    return f"results/{wildcards.system}/datasets/{config['potentials'][wildcards.potential]['dataset']}/{name}"


rule finetune_potential:
    input:
        script=script("finetune_potential"),
        parent=parent_of,
        train=lambda w: dataset_of(w, "train.extxyz"),
        valid=lambda w: dataset_of(w, "valid.extxyz"),
        dataset=lambda w: dataset_of(w, "dataset.json"),
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
        flags=lambda w: as_flags(config["potentials"][w.potential], "family", "strategy"),
        training=lambda w: as_flags(config["potentials"][w.potential].get("training", {})),
        parent=lambda w, input: f"--parent {input.parent}" if input.parent else "",
        seed=lambda w: seed("train", w.potential),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --name {wildcards.potential:q}"
        " {params.flags}"
        " {params.parent}"
        " --train {input.train:q}"
        " --valid {input.valid:q}"
        " --dataset {input.dataset:q}"
        " {params.training}"
        " --seed {params.seed}"
        " --model {output.model:q}"
        " --card {output.card:q}"
        " --training {output.training:q}"
        " > {log:q} 2>&1"


def tested_on(potential, system):
    """Return the dataset whose held-out trajectories test a potential: its own, else the system's first, or None."""
    return config["potentials"][potential].get("dataset") or next(iter(datasets_of(system)), None)


rule evaluate_potential:
    input:
        script=script("evaluate_potential"),
        potential="results/{system}/potentials/{potential}/card.json",
        test=lambda w: f"results/{w.system}/datasets/{tested_on(w.potential, w.system)}/test.extxyz",
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
        " --mobile {params.mobile:q}"
        " --evaluation {output.evaluation:q}"
        " --predictions {output.predictions:q}"
        " > {log:q} 2>&1"
