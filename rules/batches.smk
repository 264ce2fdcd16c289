"""Batches: the dynamics of many replicas in one job, one force call a step, where the config's execution.batch says so.

Makes dynamics/{potential}/batches/{batch}-{npt,nvt,nve}.json with the same scripts and settings as rules/dynamics.smk has,
and leaves each trajectory in its work folder. The rules of dynamics.smk then only put them in their places, so the files
are the same with and without batches; a batch with a further member runs that one alone.
"""

BATCH = config["execution"]["batch"]
BATCH_FILE = "results/{system}/dynamics/{potential}/batches/{batch}"
ALL = "all"


def conditions_of(potential, system):
    """Return composition and temperature of each run that a potential's D are asked for."""
    return [
        (composition, temperature_K)
        for composition in compositions_of(potential, system)
        for temperature_K in temperatures_of(potential, system)
        if config["potentials"][potential]["simulate"]
    ]


def volume_condition(system, potential, composition, temperature_K):
    """Return potential, composition and temperature of the NpT run whose mean volume a condition takes."""
    npt = config["dynamics"]["npt"]
    # a potential trained for one system says nothing about the volume of another
    given = npt.get("volume_from_potential")
    return (
        given if given in potentials_of(system) else potential,
        npt.get("volume_from", composition),
        temperature_K,
    )


def members_of(stage, wildcards):
    """Return composition and temperature of each run in a batch of a stage."""
    potential, system = wildcards.potential, wildcards.system
    conditions = conditions_of(potential, system)
    if stage == "npt":
        volumes = {volume_condition(system, one, *at) for one in potentials_of(system) for at in conditions_of(one, system)}
        conditions = sorted((composition, at) for of, composition, at in volumes if of == potential)
    return conditions


def batch_of(stage, wildcards):
    """Return the file of the batch that a run of a stage is in, if it is in one."""
    at = (wildcards.composition, wildcards.temperature_K)
    if not is_batched(stage) or at not in members_of(stage, wildcards):
        return []
    batch = ALL if BATCH == "conditions" else "{}-{}K".format(*at)
    named = {"system": wildcards.system, "potential": wildcards.potential, "batch": batch}
    # it has to be there; what makes a run anew (potential, start, settings) is an input or a setting of the run itself
    return ancient(f"{BATCH_FILE}-{stage}.json".format(**named))


def is_batched(stage):
    return BATCH == "conditions" or (BATCH == "replicas" and stage == "nve")


def gpus_of(stage):
    """Return how many GPUs a single run of a stage wants: none where a batch did the work."""
    return 0 if is_batched(stage) else 1


def in_batch(stage, wildcards):
    """Return the wildcards of each run in this batch, as dictionaries."""
    return [
        {"system": wildcards.system, "potential": wildcards.potential, "composition": composition, "temperature_K": at}
        for composition, at in members_of(stage, wildcards)
        if wildcards.batch in (ALL, f"{composition}-{at}K")
    ]


def batch_files(stage, *patterns):
    """Return a function of the wildcards that names the files of every run in a batch."""

    def names(wildcards):
        return [pattern.format(**one) for one in in_batch(stage, wildcards) for pattern in patterns]

    return names


def batch_flags(stage, *names):
    """Return a function of the wildcards that spells what each run in a batch has for its own."""

    def flags(wildcards):
        runs = in_batch(stage, wildcards)
        each = range(1, N_REPLICAS + 1) if stage == "nve" else [stage]
        section = {
            "temperature_K": [one["temperature_K"] for one in runs for _ in each],
            "trajectory": [
                f"{FOLDER}/{stage}-{number}.h5".format(**one) if stage == "nve" else f"{FOLDER}/{stage}.h5".format(**one)
                for one in runs
                for number in each
            ],
        }
        if stage != "nve":
            section["seed"] = [seed(stage, *one.values()) for one in runs]
        return as_flags(section)

    return flags


if is_batched("npt"):

    localrules:
        equilibrate_npt,
        equilibrate_nvt,


if is_batched("nve"):

    localrules:
        simulate_replica,


rule equilibrate_npt_batch:
    input:
        script=script("equilibrate_npt"),
        start=batch_files("npt", "results/{system}/structures/{composition}.extxyz"),
        potential=CARD,
        fit_to_run=fit_to_run,
    output:
        batch=f"{BATCH_FILE}-npt.json",
    log:
        "logs/equilibrate_npt_batch/{system}/{potential}/{batch}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        runs=batch_flags("npt"),
        flags=run_flags("npt"),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " {params.runs}"
        " {params.flags}"
        " --write-batch {output.batch:q}"
        " > {log:q} 2>&1"


rule equilibrate_nvt_batch:
    input:
        script=script("equilibrate_nvt"),
        start=batch_files("nvt", "results/{system}/structures/{composition}.extxyz"),
        npt=lambda w: [f"{volume_run(**one)}.h5" for one in in_batch("nvt", w)],
        npt_sidecar=lambda w: [f"{volume_run(**one)}.json" for one in in_batch("nvt", w)],
        potential=CARD,
        fit_to_run=fit_to_run,
    output:
        batch=f"{BATCH_FILE}-nvt.json",
    log:
        "logs/equilibrate_nvt_batch/{system}/{potential}/{batch}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        runs=batch_flags("nvt"),
        flags=run_flags("nvt"),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --npt {input.npt:q}"
        " --potential {input.potential:q}"
        " {params.runs}"
        " {params.flags}"
        " --write-batch {output.batch:q}"
        " > {log:q} 2>&1"


rule simulate_replica_batch:
    input:
        script=script("simulate_replica"),
        start=batch_files("nve", *(f"{FOLDER}/start-{number}.extxyz" for number in range(1, N_REPLICAS + 1))),
        potential=CARD,
    output:
        batch=f"{BATCH_FILE}-nve.json",
    log:
        "logs/simulate_replica_batch/{system}/{potential}/{batch}.log",
    conda:
        lambda w: stack_of(w.potential)
    resources:
        gpu=1,
    params:
        runs=batch_flags("nve"),
        flags=run_flags("production"),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " {params.runs}"
        " {params.flags}"
        " --write-batch {output.batch:q}"
        " > {log:q} 2>&1"
