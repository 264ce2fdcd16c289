"""Dynamics: NpT -> mean volume -> NVT -> starts near the mean energy -> NVE replicas.

Makes dynamics/{potential}/{composition}/{temperature_K}K/{npt,nvt,nve-N}.h5, each with a .json sidecar (status, reason,
checks, throughput, provenance). A run that explodes is a result: it ends, keeps its frames and says why. Trained
potentials run only once their stability.json says that they are fit for it.
"""

FOLDER = "results/{system}/dynamics/{potential}/{composition}/{temperature_K}K"
CARD = "results/{system}/potentials/{potential}/card.json"
N_REPLICAS = config["dynamics"]["production"]["replicas"]


def run_flags(stage, *skipped):
    """Return a function of the wildcards that spells a stage, with the potential's own durations."""

    def flags(wildcards):
        own = config["potentials"][wildcards.potential].get("dynamics", {})
        section = {
            name: own.get(f"{stage}_{name}", own.get(name, value)) for name, value in config["dynamics"][stage].items()
        }
        return as_flags({name: value for name, value in section.items() if name not in skipped})

    return flags


def volume_run(system, potential, composition, temperature_K):
    """Return the NpT run (without its suffix) whose mean volume a condition takes."""
    npt = config["dynamics"]["npt"]
    # a potential trained for one system says nothing about the volume of another
    given = npt.get("volume_from_potential")
    potential = given if given in potentials_of(system) else potential
    composition = npt.get("volume_from", composition)
    return f"results/{system}/dynamics/{potential}/{composition}/{temperature_K}K/npt"


rule equilibrate_npt:
    input:
        script=script("equilibrate_npt"),
        start="results/{system}/structures/{composition}.extxyz",
        potential=CARD,
        fit_to_run=fit_to_run,
    output:
        trajectory=f"{FOLDER}/npt.h5",
        sidecar=f"{FOLDER}/npt.json",
    log:
        "logs/equilibrate_npt/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        flags=run_flags("npt", "volume_from", "volume_from_potential", "discard_fraction"),
        limits=as_flags(config["dynamics"]["limits"]),
        seed=lambda w: seed("npt", *w),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.limits}"
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
    output:
        trajectory=f"{FOLDER}/nvt.h5",
        sidecar=f"{FOLDER}/nvt.json",
    log:
        "logs/equilibrate_nvt/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        flags=run_flags("nvt"),
        discard=as_flags(config["dynamics"]["npt"], "discard_fraction"),
        limits=as_flags(config["dynamics"]["limits"]),
        seed=lambda w: seed("nvt", *w),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --npt {input.npt:q}"
        " {params.discard}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.limits}"
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
    output:
        trajectory=f"{FOLDER}/nve-{{replica}}.h5",
        sidecar=f"{FOLDER}/nve-{{replica}}.json",
    log:
        "logs/simulate_replica/{system}/{potential}/{composition}/{temperature_K}K-{replica}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        flags=run_flags("production", "ensemble", "replicas", "starts_apart_ps"),
        limits=as_flags(config["dynamics"]["limits"]),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " {params.limits}"
        " --trajectory {output.trajectory:q}"
        " > {log:q} 2>&1"
