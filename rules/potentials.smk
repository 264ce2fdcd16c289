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
