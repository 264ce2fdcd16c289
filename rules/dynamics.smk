"""Dynamics: NpT -> mean volume -> NVT -> starts near the mean energy -> NVE replicas.

Makes dynamics/{potential}/{composition}/{temperature_K}K/{npt,nvt,nve-N}.h5, each with a .json sidecar (status, reason,
checks, throughput, provenance). A run that explodes is a result: it ends, keeps its frames and says why. Trained
potentials run only once their stability.json says that they are fit for it.
"""

FOLDER = "results/{system}/dynamics/{potential}/{composition}/{temperature_K}K"
CARD = "results/{system}/potentials/{potential}/card.json"
N_REPLICAS = config["dynamics"]["production"]["replicas"]


def engine_of(potential):
    """Return what moves the atoms and how; the ways to a faster model are MACE's."""
    engine = {name: config["dynamics"][name] for name in ("engine", "accelerate", "checkpoint_interval_s")}
    return engine if config["potentials"][potential]["family"] == "mace" else engine | {"accelerate": "none"}


def run_flags(stage):
    """Return a function of the wildcards that spells a stage: settings, the potential's own durations, engine, limits."""
    elsewhere = {"ensemble", "replicas", "starts_apart_ps", "volume_from", "volume_from_potential"}
    if stage == "npt":
        elsewhere.add("discard_fraction")

    def flags(wildcards):
        own = config["potentials"][wildcards.potential].get("dynamics", {})
        section = {
            name: own.get(f"{stage}_{name}", own.get(name, value))
            for name, value in config["dynamics"][stage].items()
            if name not in elsewhere
        }
        if stage == "nvt":
            section["discard_fraction"] = config["dynamics"]["npt"]["discard_fraction"]
        section["mobile"] = config["systems"][wildcards.system]["mobile"]
        return as_flags({**section, **config["dynamics"]["limits"], **engine_of(wildcards.potential)})

    return flags


def volume_run(system, potential, composition, temperature_K):
    """Return the NpT run (without its suffix) whose mean volume a condition takes."""
    given, composition, temperature_K = volume_condition(system, potential, composition, temperature_K)
    return f"results/{system}/dynamics/{given}/{composition}/{temperature_K}K/npt"


rule equilibrate_npt:
    input:
        script=script("equilibrate_npt"),
        start="results/{system}/structures/{composition}.extxyz",
        potential=CARD,
        fit_to_run=fit_to_run,
        from_batch=lambda w: batch_of("npt", w),
    output:
        trajectory=f"{FOLDER}/npt.h5",
        sidecar=f"{FOLDER}/npt.json",
    log:
        "logs/equilibrate_npt/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=lambda w: gpus_of("npt"),
    params:
        flags=run_flags("npt"),
        from_batch=input_flags("from_batch"),
        seed=lambda w: seed("npt", *w),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.from_batch}"
        " --seed {params.seed}"
        " --trajectory {output.trajectory:q}"
        " > {log:q} 2>&1"


rule equilibrate_nvt:
    input:
        script=script("equilibrate_nvt"),
        start="results/{system}/structures/{composition}.extxyz",
        npt=lambda w: f"{volume_run(**w)}.h5",
        npt_sidecar=lambda w: f"{volume_run(**w)}.json",
        potential=CARD,
        fit_to_run=fit_to_run,
        from_batch=lambda w: batch_of("nvt", w),
    output:
        trajectory=f"{FOLDER}/nvt.h5",
        sidecar=f"{FOLDER}/nvt.json",
    log:
        "logs/equilibrate_nvt/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=lambda w: gpus_of("nvt"),
    params:
        flags=run_flags("nvt"),
        from_batch=input_flags("from_batch"),
        seed=lambda w: seed("nvt", *w),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --npt {input.npt:q}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.from_batch}"
        " --seed {params.seed}"
        " --trajectory {output.trajectory:q}"
        " > {log:q} 2>&1"


rule select_starts:
    input:
        script=script("select_starts"),
        nvt=f"{FOLDER}/nvt.h5",
        sidecar=f"{FOLDER}/nvt.json",
    output:
        starts=expand(f"{FOLDER}/start-{{replica}}.extxyz", replica=range(1, N_REPLICAS + 1), allow_missing=True),
    log:
        "logs/select_starts/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(
            {
                "starts_apart_ps": config["potentials"][w.potential]
                .get("dynamics", {})
                .get("starts_apart_ps", config["dynamics"]["production"]["starts_apart_ps"])
            }
        ),
    shell:
        "python {input.script:q}"
        " --nvt {input.nvt:q}"
        " {params.flags}"
        " --starts {output.starts:q}"
        " > {log:q} 2>&1"


rule simulate_replica:
    input:
        script=script("simulate_replica"),
        start=f"{FOLDER}/start-{{replica}}.extxyz",
        potential=CARD,
        from_batch=lambda w: batch_of("nve", w),
    output:
        trajectory=f"{FOLDER}/nve-{{replica}}.h5",
        sidecar=f"{FOLDER}/nve-{{replica}}.json",
    log:
        "logs/simulate_replica/{system}/{potential}/{composition}/{temperature_K}K-{replica}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=lambda w: gpus_of("nve"),
    params:
        flags=run_flags("production"),
        from_batch=input_flags("from_batch"),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.from_batch}"
        " --trajectory {output.trajectory:q}"
        " > {log:q} 2>&1"
