"""Structures and configuration space: build each composition, explore it by MD with a universal potential.

Needs the config's systems and exploration; makes structures/{composition}.extxyz and
configurations/{composition}/{temperature_K}K.h5 with a .json sidecar.
"""


def host_flags(wildcards):
    system = config["systems"][wildcards.system]
    count = system["compositions"][wildcards.composition]
    return (
        as_flags(system["host"])
        + " "
        + as_flags({"supercell": system["supercell"], "mobile": system["mobile"], "count": count})
    )


rule build_structures:
    input:
        script=script("build_structures"),
        host=lambda w: config["systems"][w.system]["host"].get("file", []),
    output:
        structure="results/{system}/structures/{composition}.extxyz",
    log:
        "logs/build_structures/{system}/{composition}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=host_flags,
    shell:
        "python {input.script:q}"
        " {params.flags}"
        " --system {wildcards.system:q}"
        " --composition {wildcards.composition:q}"
        " --structure {output.structure:q}"
        " > {log:q} 2>&1"


def exploring_card(wildcards):
    return f"results/{wildcards.system}/potentials/{config['exploration']['potential']}/card.json"


def exploration_flags(wildcards):
    """Spell the settings of an exploration, its engine and its limits; its runs are cut into jobs as dynamics are."""
    section = dict(config["exploration"])
    potential, _ = section.pop("potential"), section.pop("temperatures_K")
    return as_flags({**section, **config["dynamics"]["limits"], **engine_of(potential)})


rule explore_configurations:
    input:
        script=script("explore_configurations"),
        start="results/{system}/structures/{composition}.extxyz",
        potential=exploring_card,
        from_batch=lambda w: exploration_batch_of(w),
    output:
        trajectory="results/{system}/configurations/{composition}/{temperature_K}K.h5",
        sidecar="results/{system}/configurations/{composition}/{temperature_K}K.json",
    log:
        "logs/explore_configurations/{system}/{composition}/{temperature_K}K.log",
    conda:
        lambda w: stack_of(config["exploration"]["potential"])
    threads: 1
    resources:
        gpu=lambda w: gpus_of("explore"),
    params:
        flags=exploration_flags,
        from_batch=input_flags("from_batch"),
        seed=lambda w: seed("explore", w.system, w.composition, w.temperature_K),
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
