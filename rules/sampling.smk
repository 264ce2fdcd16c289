"""DIRECT sampling: encode a pool, pick from it, and say how much of the explored space the picks cover.

A precomputed dataset picks its training frames from the labelled candidates; a live one (espresso, vasp) the frames
to label from the exploration, whose pool is encoded once for each encoder under the name exploration-{encoder}.
Makes sampling/{dataset}/{features.npy, frames.extxyz, selection.csv, coverage.json, map.csv, next.csv}.
"""


def is_live(dataset):
    return config["datasets"][dataset]["labels"]["mode"] != "precomputed"


def explored(system):
    return expand(
        "results/{system}/configurations/{composition}/{temperature_K}K.h5",
        system=system,
        composition=config["systems"][system]["compositions"],
        temperature_K=[f"{value:g}" for value in config["exploration"]["temperatures_K"]],
    )


def pool_of(dataset):
    """Return the folder of the pool that a dataset picks from."""
    encoder = config["datasets"][dataset]["direct"]["encoder"]
    return f"exploration-{encoder}" if is_live(dataset) else dataset


rule encode_frames:
    input:
        script=script("encode_frames"),
        pool=lambda w: (
            explored(w.system)
            if w.pool.startswith("exploration-")
            else f"results/{w.system}/labels/{w.pool}/candidates.extxyz"
        ),
    output:
        features="results/{system}/sampling/{pool}/features.npy",
        frames="results/{system}/sampling/{pool}/frames.extxyz",
    log:
        "logs/encode_frames/{system}/{pool}.log",
    wildcard_constraints:
        pool=one_of([*config["datasets"], "exploration-chgnet"]),
    conda:
        "../envs/chgnet-cuda.yaml"
    resources:
        gpu=1,
    params:
        encoder=lambda w: (
            w.pool.removeprefix("exploration-")
            if w.pool.startswith("exploration-")
            else config["datasets"][w.pool]["direct"]["encoder"]
        ),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --pool {input.pool:q}"
        " --encoder {params.encoder:q}"
        " --system {wildcards.system:q}"
        " --features {output.features:q}"
        " --frames {output.frames:q}"
        " > {log:q} 2>&1"


rule select_direct:
    input:
        script=script("select_direct"),
        features=lambda w: f"results/{w.system}/sampling/{pool_of(w.dataset)}/features.npy",
        frames=lambda w: f"results/{w.system}/sampling/{pool_of(w.dataset)}/frames.extxyz",
    output:
        selection="results/{system}/sampling/{dataset}/selection.csv",
    log:
        "logs/select_direct/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(
            {
                "clusters": config["datasets"][w.dataset]["direct"]["frames"]
                // config["datasets"][w.dataset]["direct"]["per_cluster"],
                "per_cluster": config["datasets"][w.dataset]["direct"]["per_cluster"],
                "threshold": config["datasets"][w.dataset]["direct"]["threshold"],
            }
        ),
    shell:
        "python {input.script:q}"
        " --features {input.features:q}"
        " --frames {input.frames:q}"
        " {params.flags}"
        " --selection {output.selection:q}"
        " > {log:q} 2>&1"


rule compute_coverage:
    input:
        script=script("compute_coverage"),
        explored=lambda w: f"results/{w.system}/sampling/exploration-{config['datasets'][w.dataset]['direct']['encoder']}/features.npy",
        explored_frames=lambda w: f"results/{w.system}/sampling/exploration-{config['datasets'][w.dataset]['direct']['encoder']}/frames.extxyz",
        candidates=lambda w: f"results/{w.system}/sampling/{pool_of(w.dataset)}/features.npy",
        selection="results/{system}/sampling/{dataset}/selection.csv",
    output:
        coverage="results/{system}/sampling/{dataset}/coverage.json",
        map="results/{system}/sampling/{dataset}/map.csv",
        next_selection="results/{system}/sampling/{dataset}/next.csv",
    log:
        "logs/compute_coverage/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(config["datasets"][w.dataset]["direct"], "bins", "next_frames"),
    shell:
        "python {input.script:q}"
        " --explored {input.explored:q}"
        " --explored-frames {input.explored_frames:q}"
        " --candidates {input.candidates:q}"
        " --selection {input.selection:q}"
        " {params.flags}"
        " --coverage {output.coverage:q}"
        " --map {output.map:q}"
        " --next-selection {output.next_selection:q}"
        " > {log:q} 2>&1"
