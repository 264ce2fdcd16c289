"""Batches: many runs in one job, one force call a step, where the config's execution.batch says so.

Makes dynamics/{potential}/batches/{batch}-{npt,nvt,nve}.json and configurations/batch.json with the same scripts and
settings as the rules of single runs have, and leaves each trajectory in its work folder. The rules of single runs then
only put them in their places, so the files are the same with and without batches. A batch with a further member, and one
that is cut otherwise, runs what is new alone: of the others it finds the end in their work folders.
"""

BATCH = config["execution"]["batch"]
BATCH_FILE = "results/{system}/dynamics/{potential}/batches/{batch}"
ALL = "all"


def is_batched(stage):
    return BATCH == "conditions" or (BATCH == "replicas" and stage == "nve")


def gpus_of(stage):
    """Return how many GPUs a single run of a stage wants: none where a batch does the work."""
    return 0 if is_batched(stage) else 1


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


def members_of(stage, potential, system):
    """Return composition and temperature of each run of a stage that a potential is asked for."""
    if stage != "npt":
        return conditions_of(potential, system)
    volumes = {volume_condition(system, one, *at) for one in potentials_of(system) for at in conditions_of(one, system)}
    return sorted((composition, at) for of, composition, at in volumes if of == potential)


def batch_of(stage, wildcards):
    """Return the file of the batch that a run of a stage is in, if batches are made of this stage."""
    if not is_batched(stage):
        return []
    at = (wildcards.composition, wildcards.temperature_K)
    # a run that nothing but its own file asks for is a batch of its own
    together = BATCH == "conditions" and at in members_of(stage, wildcards.potential, wildcards.system)
    batch = ALL if together else "{}-{}K".format(*at)
    named = {"system": wildcards.system, "potential": wildcards.potential, "batch": batch}
    # not as ancient: Snakemake 9.27 then passes over runs that are missing or changed beside others that are not
    return f"{BATCH_FILE}-{stage}.json".format(**named)


def in_batch(stage, wildcards):
    """Return the wildcards of each condition in this batch, as dictionaries."""
    system, potential = wildcards.system, wildcards.potential
    conditions = [wildcards.batch.removesuffix("K").rsplit("-", 1)]
    if wildcards.batch == ALL:
        conditions = members_of(stage, potential, system)
    return [
        {"system": system, "potential": potential, "composition": composition, "temperature_K": temperature_K}
        for composition, temperature_K in conditions
    ]


def batch_files(stage, *patterns):
    """Return a function of the wildcards that names the files of every run in a batch."""

    def names(wildcards):
        return [pattern.format(**one) for one in in_batch(stage, wildcards) for pattern in patterns]

    return names


def batch_flags(stage):
    """Return a function of the wildcards that spells what each run in a batch has for its own."""
    names = [f"nve-{number}" for number in range(1, N_REPLICAS + 1)] if stage == "nve" else [stage]

    def flags(wildcards):
        runs = in_batch(stage, wildcards)
        section = {
            "temperature_K": [one["temperature_K"] for one in runs for _ in names],
            "trajectory": [f"{FOLDER}/{name}.h5".format(**one) for one in runs for name in names],
        }
        if stage != "nve":
            section["seed"] = [seed(stage, *one.values()) for one in runs]
        return as_flags(section)

    return flags


def exploration_members(system):
    """Return composition and temperature of each exploration of a system."""
    temperatures_K = [f"{value:g}" for value in config["exploration"]["temperatures_K"]]
    return [(composition, at) for composition in config["systems"][system]["compositions"] for at in temperatures_K]


def exploration_batch_of(wildcards):
    """Return the file of the batch that a system's explorations are in, if they are made in one."""
    return f"results/{wildcards.system}/configurations/batch.json" if is_batched("explore") else []


def exploration_batch_flags(wildcards):
    """Spell what each exploration of a batch has for its own."""
    members = exploration_members(wildcards.system)
    return as_flags(
        {
            "temperature_K": [at for _, at in members],
            "trajectory": [f"results/{wildcards.system}/configurations/{name}/{at}K.h5" for name, at in members],
            "seed": [seed("explore", wildcards.system, *one) for one in members],
        }
    )


if is_batched("explore"):

    localrules:
        explore_configurations,
        equilibrate_npt,
        equilibrate_nvt,


if is_batched("nve"):

    localrules:
        simulate_replica,


rule explore_configurations_batch:
    input:
        script=script("explore_configurations"),
        start=lambda w: [f"results/{w.system}/structures/{name}.extxyz" for name, _ in exploration_members(w.system)],
        potential=exploring_card,
    output:
        batch="results/{system}/configurations/batch.json",
    log:
        "logs/explore_configurations_batch/{system}.log",
    conda:
        lambda w: stack_of(config["exploration"]["potential"])
    threads: 1
    resources:
        gpu=1,
    params:
        runs=exploration_batch_flags,
        flags=exploration_flags,
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --start {input.start:q}"
        " --potential {input.potential:q}"
        " {params.runs}"
        " {params.flags}"
        " --write-batch {output.batch:q}"
        " > {log:q} 2>&1"


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
