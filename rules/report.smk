"""Report: one self-contained page for each system, and one table of all results.

Needs what the stages before left: structures, potentials, sampling, datasets, labels, sidecars of the dynamics, and
diffusion; makes report.html for each system, results/summary.csv (diffusivities) and results/evaluations.csv (errors).
"""

from types import SimpleNamespace


def conditions(system):
    """Return every (potential, composition, temperature_K) whose diffusivity a system asks for."""
    return [
        (potential, composition, temperature_K)
        for potential in potentials_of(system)
        if config["potentials"][potential]["simulate"]
        for composition in compositions_of(potential, system)
        for temperature_K in temperatures_of(potential, system)
    ]


def lines(system):
    """Return every (potential, composition) that an Arrhenius line is fitted for."""
    return list(dict.fromkeys(condition[:2] for condition in conditions(system)))


def of_potentials(name, *, trained=False, simulated=False):
    """Return a function of the wildcards that names one file of each potential."""
    return lambda w: [
        f"results/{w.system}/potentials/{potential}/{name}"
        for potential in potentials_of(w.system)
        if (potential in TRAINED or not trained) and (config["potentials"][potential]["simulate"] or not simulated)
    ]


def of_evaluated(name):
    """Return the same for potentials that labels of the system can judge: none without a dataset."""
    return lambda w: of_potentials(name)(w) if datasets_of(w.system) else []


def from_scratch(potential):
    """Tell whether a potential, or the first of its parents, was trained from random weights."""
    entry = config["potentials"][potential]
    return from_scratch(entry["parent"]) if "parent" in entry else entry.get("strategy") == "scratch"


def further_evaluations(wildcards):
    """Return the errors of all potentials on the further test sets of their system.

    A potential from random weights has nothing to forget, and knows few of the elements of a replay set.
    """
    return [
        f"results/{wildcards.system}/potentials/{potential}/evaluations/{test_set}.json"
        for potential in potentials_of(wildcards.system)
        for test_set in test_sets_of(wildcards.system)
        if "replay" not in config["test_sets"][test_set] or not from_scratch(potential)
    ]


def committees(wildcards):
    return [f"results/{wildcards.system}/committees/{name}.json" for name in committees_of(wildcards.system)]


def of_datasets(place):
    """Return a function of the wildcards that names one file of each dataset."""
    return lambda w: [f"results/{w.system}/{place.format(dataset=dataset)}" for dataset in datasets_of(w.system)]


def of_points(suffix):
    """Return a function of the wildcards that names one file of diffusion for each condition."""
    return lambda w: [
        f"results/{w.system}/diffusion/{potential}/{composition}/{temperature_K}K{suffix}"
        for potential, composition, temperature_K in conditions(w.system)
    ]


def fitted(system):
    return [
        f"results/{system}/diffusion/{potential}/{composition}/arrhenius.json"
        for potential, composition in lines(system)
    ]


def sidecars(wildcards):
    """Return the sidecars of every run behind the diffusivities, and of the exploration behind the datasets."""
    root = f"results/{wildcards.system}"
    stages = [
        "nvt",
        *(f"nve-{replica + 1}" for replica in range(config["dynamics"]["production"]["replicas"])),
    ]
    found = []
    for potential, composition, temperature_K in conditions(wildcards.system):
        found.append(f"{volume_run(wildcards.system, potential, composition, temperature_K)}.json")
        found += [f"{root}/dynamics/{potential}/{composition}/{temperature_K}K/{stage}.json" for stage in stages]
    if datasets_of(wildcards.system):
        found += [path.removesuffix(".h5") + ".json" for path in explored(wildcards.system)]
    return list(dict.fromkeys(found))


def structures(wildcards):
    compositions = dict.fromkeys(composition for _, composition, _ in conditions(wildcards.system))
    return [f"results/{wildcards.system}/structures/{composition}.extxyz" for composition in compositions]


def host_name(wildcards):
    host = config["systems"][wildcards.system]["host"]
    return "".join(host["species"]) if "species" in host else Path(host["file"]).stem


def written_inputs(wildcards):
    """Return the inputs to be written: not of frames worth labelling next where nothing tells pw.x's cutoffs."""
    found = []
    for name in datasets_of(wildcards.system):
        labels = config["datasets"][name]["labels"]
        stated = labels["espresso"]["wavefunction_cutoff_Ry"] != "recommended"
        if is_live(name) or stated or os.path.isdir(labels["espresso"]["pseudopotentials"]):
            found.append(f"results/{wildcards.system}/labels/{name}/inputs")
    return found


def of_all_systems(*of_system):
    """Return the files that functions of the wildcards name for each system."""
    systems = [SimpleNamespace(system=system) for system in config["systems"]]
    return [path for function in of_system for system in systems for path in function(system)]


def targets():
    """Return all that the config asks for: reports, summary, and pw.x inputs of the frames worth labelling next.

    The results that a report reads are asked for too: Snakemake brings a deleted file back only where it is a target.
    """
    asked = [
        structures,
        sidecars,
        of_potentials("card.json"),
        of_evaluated("evaluation.json"),
        further_evaluations,
        of_potentials("stability.json", trained=True, simulated=True),
        committees,
        written_inputs,
        of_datasets("sampling/{dataset}/selection.csv"),
        of_datasets("sampling/{dataset}/coverage.json"),
        of_datasets("datasets/{dataset}/dataset.json"),
        of_points(".json"),
        of_points(".rdf.csv"),
    ]
    reports = [path for system in config["systems"] for path in (*fitted(system), f"results/{system}/report.html")]
    return ["results/summary.csv", "results/evaluations.csv", *of_all_systems(*asked), *reports]


rule report_system:
    input:
        script=script("report_system"),
        template="resources/report/report.html.j2",
        style="resources/report/report.css",
        structures=structures,
        cards=of_potentials("card.json"),
        evaluations=of_evaluated("evaluation.json"),
        predictions=of_evaluated("predictions.csv"),
        further=further_evaluations,
        stability=of_potentials("stability.json", trained=True, simulated=True),
        committees=committees,
        training=of_potentials("training.csv", trained=True),
        coverage=of_datasets("sampling/{dataset}/coverage.json"),
        maps=of_datasets("sampling/{dataset}/map.csv"),
        datasets=of_datasets("datasets/{dataset}/dataset.json"),
        rejected=of_datasets("labels/{dataset}/rejected.csv"),
        sidecars=sidecars,
        diffusivities=of_points(".json"),
        curves=of_points(".curve.csv"),
        correlations=of_points(".rdf.csv"),
        arrhenius=lambda w: fitted(w.system),
    output:
        report="results/{system}/report.html",
    log:
        "logs/report_system/{system}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        host=host_name,
        mobile=lambda w: config["systems"][w.system]["mobile"],
    shell:
        "python {input.script:q}"
        " --system {wildcards.system:q}"
        " --host {params.host:q}"
        " --mobile {params.mobile:q}"
        " --structures {input.structures:q}"
        " --cards {input.cards:q}"
        " --evaluations {input.evaluations:q}"
        " --predictions {input.predictions:q}"
        " --further {input.further:q}"
        " --stability {input.stability:q}"
        " --committees {input.committees:q}"
        " --training {input.training:q}"
        " --coverage {input.coverage:q}"
        " --maps {input.maps:q}"
        " --datasets {input.datasets:q}"
        " --rejected {input.rejected:q}"
        " --sidecars {input.sidecars:q}"
        " --diffusivities {input.diffusivities:q}"
        " --curves {input.curves:q}"
        " --correlations {input.correlations:q}"
        " --arrhenius {input.arrhenius:q}"
        " --template {input.template:q}"
        " --report {output.report:q}"
        " > {log:q} 2>&1"


# by itself, as a target, all trainings and their tests and no dynamics
rule collect_evaluations:
    input:
        script=script("collect_evaluations"),
        cards=of_all_systems(of_potentials("card.json")),
        evaluations=of_all_systems(of_evaluated("evaluation.json"), further_evaluations),
    output:
        table="results/evaluations.csv",
    log:
        "logs/collect_evaluations.log",
    conda:
        "../envs/analysis.yaml"
    shell:
        "python {input.script:q}"
        " --cards {input.cards:q}"
        " --evaluations {input.evaluations:q}"
        " --table {output.table:q}"
        " > {log:q} 2>&1"


rule collect_summary:
    input:
        script=script("collect_summary"),
        diffusivities=[
            f"results/{system}/diffusion/{potential}/{composition}/{temperature_K}K.json"
            for system in config["systems"]
            for potential, composition, temperature_K in conditions(system)
        ],
        arrhenius=[path for system in config["systems"] for path in fitted(system)],
    output:
        summary="results/summary.csv",
    log:
        "logs/collect_summary.log",
    conda:
        "../envs/analysis.yaml"
    shell:
        "python {input.script:q}"
        " --diffusivities {input.diffusivities:q}"
        " --arrhenius {input.arrhenius:q}"
        " --summary {output.summary:q}"
        " > {log:q} 2>&1"
