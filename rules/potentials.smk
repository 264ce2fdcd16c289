"""Potentials: fetch what ships, assemble datasets, train, and evaluate on held-out trajectories.

Makes datasets/{dataset}/{train,valid,test}.extxyz with dataset.json, and potentials/{potential}/ with the model file,
card.json, training.csv and evaluation.json.
"""


def stack_of(potential):
    """Return the environment of a potential's family, for those who run with conda."""
    return f"../envs/{config['potentials'][potential]['family']}-cuda.yaml"


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
        atom_references=lambda w: config["datasets"][w.dataset]["labels"].get("atom_references", []),
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
        selection=lambda w, input: f"--selection {input.selection}" if input.selection else "",
        references=lambda w, input: (
            f"--atom-references {shlex.quote(str(input.atom_references))}" if input.atom_references else ""
        ),
        flags=lambda w: as_flags(config["datasets"][w.dataset], "valid_fraction"),
        seed=lambda w: seed("validation", w.dataset),
    shell:
        "python {input.script:q}"
        " --candidates {input.candidates:q}"
        " --held-out {input.held_out:q}"
        " {params.selection}"
        " {params.references}"
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
