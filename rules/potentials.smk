"""Potentials: fetch what ships, assemble datasets, train, and evaluate on held-out trajectories.

Makes datasets/{dataset}/{train,valid,test}.extxyz with dataset.json, and potentials/{potential}/ with the model file,
card.json, training.csv and evaluation.json.
"""

rule fetch_potential:
    input:
        script=script("fetch_potential"),
    output:
        card="results/{system}/potentials/{potential}/card.json",
        model="results/{system}/potentials/{potential}/shipped.pt",
    params:
        flags=lambda w: as_flags(config["potentials"][w.potential], "family", "weights"),
    wildcard_constraints:
        potential=one_of(set(config["potentials"]) - set(TRAINED)),
    log:
        "logs/fetch_potential/{system}/{potential}.log",
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
    params:
        selection=lambda w, input: f"--selection {input.selection}" if input.selection else "",
        references=lambda w, input: f"--atom-references {input.atom_references}" if input.atom_references else "",
        flags=lambda w: as_flags(config["datasets"][w.dataset], "valid_fraction"),
        seed=lambda w: seed("validation", w.dataset),
    log:
        "logs/assemble_dataset/{system}/{dataset}.log",
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
    params:
        flags=lambda w: as_flags(config["potentials"][w.potential], "family", "strategy"),
        training=lambda w: as_flags(config["potentials"][w.potential].get("training", {})),
        parent=lambda w, input: f"--parent {input.parent}" if input.parent else "",
        seed=lambda w: seed("train", w.potential),
    wildcard_constraints:
        potential=one_of(TRAINED),
    threads: 2
    resources:
        gpu=1,
    log:
        "logs/finetune_potential/{system}/{potential}.log",
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


rule evaluate_potential:
    input:
        script=script("evaluate_potential"),
        potential="results/{system}/potentials/{potential}/card.json",
        test=lambda w: f"results/{w.system}/datasets/{tested_on(w.potential, w.system)}/test.extxyz",
    output:
        evaluation="results/{system}/potentials/{potential}/evaluation.json",
        predictions="results/{system}/potentials/{potential}/predictions.csv",
    params:
        mobile=lambda w: config["systems"][w.system]["mobile"],
    resources:
        gpu=1,
    log:
        "logs/evaluate_potential/{system}/{potential}.log",
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --potential {input.potential:q}"
        " --test {input.test:q}"
        " --mobile {params.mobile:q}"
        " --evaluation {output.evaluation:q}"
        " --predictions {output.predictions:q}"
        " > {log:q} 2>&1"
