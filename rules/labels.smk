"""DFT labels: ingest what one has, or run pw.x or VASP on the selected frames; then split by whole trajectories.

Makes labels/{dataset}/{accepted.extxyz, rejected.csv, candidates.extxyz, held_out.extxyz}, the inputs of runs in
labels/{dataset}/inputs (live datasets: of the selected frames; precomputed: of the frames worth labelling next), the
runs of live datasets in labels/{dataset}/runs, and on request labels/{dataset}/convergence.csv.
"""

import json


def labels_of(wildcards):
    return config["datasets"][wildcards.dataset]["labels"]


def labelled_by(*modes):
    """Return the wildcard constraint of the datasets whose labels come that way."""
    return one_of([name for name, dataset in config["datasets"].items() if dataset["labels"]["mode"] in modes])


def selected_frames(wildcards):
    """Return the pool and the picks that inputs are written for."""
    encoder = config["datasets"][wildcards.dataset]["direct"]["encoder"]
    picks = "selection" if is_live(wildcards.dataset) else "next"
    folder = f"results/{wildcards.system}/sampling"
    return {
        "frames": f"{folder}/exploration-{encoder}/frames.extxyz",
        "selection": f"{folder}/{wildcards.dataset}/{picks}.csv",
    }


def indices_of(dataset):
    """Return the numbers of the run folders of a live dataset."""
    return [f"{index:04d}" for index in range(config["datasets"][dataset]["direct"]["frames"])]


def batches_of(dataset):
    """Return the run folders that each job works through, by the number of the first."""
    indices, size = indices_of(dataset), config["datasets"][dataset]["labels"]["frames_per_job"]
    return {indices[first]: indices[first : first + size] for first in range(0, len(indices), size)}


def batch(wildcards):
    return batches_of(wildcards.dataset)[wildcards.index]


def runs_of(wildcards):
    return f"results/{wildcards.system}/labels/{wildcards.dataset}/runs"


def label_sources(wildcards):
    """Return the tables of a live dataset's finished batches, or the files that the config names."""
    if not is_live(wildcards.dataset):
        return sources_of(wildcards.dataset)
    return [f"{runs_of(wildcards)}/batch-{first}.csv" for first in batches_of(wildcards.dataset)]


def frame_sources(wildcards, input):
    """Return what is read for frames: of a live dataset its run folders, those of an earlier selection left out."""
    if not is_live(wildcards.dataset):
        return shlex.join(input.sources)
    return shlex.join(f"{runs_of(wildcards)}/{index}" for index in indices_of(wildcards.dataset))


def elements_of(wildcards):
    """Return the flags that name the elements of a system: frames with others are another material's."""
    system = config["systems"][wildcards.system]
    return as_flags({"elements": sorted({*system["host"].get("species", []), system["mobile"]})})


MESH = ("kpoints", "kpoints_shift")
CUTOFFS = ("pseudopotentials", "functional", "wavefunction_cutoff_Ry", "density_cutoff_Ry")
SCF = ("scf_threshold_Ry", "mixing_beta", "max_scf_steps")


def espresso_flags(wildcards, *more):
    """Spell the settings of a pw.x single point; a mesh that is given wins over a spacing."""
    section = labels_of(wildcards)["espresso"]
    mesh = MESH if "kpoints" in section else ("kpoint_spacing_per_A", "kpoints_shift")
    return as_flags(section, *CUTOFFS, *mesh, "smearing", "smearing_width_Ry", *SCF, *more)


def vasp_flags(wildcards):
    """Spell the settings of a VASP single point, tags of the config's own included."""
    section = labels_of(wildcards)["vasp"]
    tags = [f"{tag}={json.dumps(value)}" for tag, value in sorted(section["incar"].items())]
    return " ".join([as_flags(section, "preset"), *(["--incar", shlex.join(tags)] if tags else [])])


def structures_of(wildcards):
    compositions = config["systems"][wildcards.system]["compositions"]
    return [f"results/{wildcards.system}/structures/{name}.extxyz" for name in compositions]


def training_start(wildcards):
    """Return the structure that on-the-fly training starts from."""
    counts = config["systems"][wildcards.system]["compositions"]
    chosen = labels_of(wildcards)["vasp"]["training"].get("composition", max(counts, key=counts.get))
    return f"results/{wildcards.system}/structures/{chosen}.extxyz"


def vasp_training_flags(wildcards):
    plan = labels_of(wildcards)["vasp"]["training"]
    temperatures = as_flags(config["systems"][wildcards.system], "temperatures_K")
    return f"{temperatures} {as_flags(plan, *(name for name in sorted(plan) if name != 'composition'))}"


def ingest_flags(wildcards):
    """Spell which frames may enter, and the level of theory of those that do not say theirs."""
    labels = labels_of(wildcards)
    bounds = ("max_rejected_fraction", "min_distance_A", "max_force_eV_per_A", "max_energy_deviation_eV_per_atom")
    return as_flags(labels, "format", *bounds, *(name for name in ("level_of_theory", "energy_kind") if name in labels))


def pseudopotentials_of(wildcards):
    """Return the UPF files of a live dataset: another file is another level of theory."""
    folder = Path(labels_of(wildcards)["espresso"]["pseudopotentials"])
    return sorted(map(str, folder.glob("*.[uU][pP][fF]"))) if is_live(wildcards.dataset) else []


rule write_espresso_inputs:
    input:
        unpack(selected_frames),
        script=script("write_espresso_inputs"),
        upfs=pseudopotentials_of,
    output:
        inputs=directory("results/{system}/labels/{dataset}/inputs"),
    log:
        "logs/write_espresso_inputs/{system}/{dataset}.log",
    wildcard_constraints:
        dataset=labelled_by("precomputed", "espresso"),
    conda:
        "../envs/dft.yaml"
    params:
        flags=espresso_flags,
        # inputs of frames worth labelling next may be run elsewhere, where the pseudopotentials are
        missing=lambda w: "" if is_live(w.dataset) else "--allow-missing-pseudopotentials",
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " --selection {input.selection:q}"
        " {params.flags}"
        " {params.missing}"
        " --inputs {output.inputs:q}"
        " > {log:q} 2>&1"


rule label_espresso:
    input:
        script=script("label_espresso"),
        inputs="results/{system}/labels/{dataset}/inputs",
    output:
        table="results/{system}/labels/{dataset}/runs/batch-{index}.csv",
    log:
        "logs/label_espresso/{system}/{dataset}/{index}.log",
    wildcard_constraints:
        dataset=labelled_by("espresso"),
    conda:
        "../envs/dft.yaml"
    resources:
        # the profile's: what starts pw.x, e.g. mpi="mpirun -np 4", and how long a job may take (runtime, minutes)
        mpi="",
    params:
        indices=batch,
        runs=runs_of,
        flags=lambda w: as_flags(labels_of(w)["espresso"], "pools"),
    shell:
        "python {input.script:q}"
        " --inputs {input.inputs:q}"
        " --indices {params.indices}"
        " {params.flags}"
        " --launcher {resources.mpi:q}"
        " --runs {params.runs:q}"
        " --table {output.table:q}"
        " > {log:q} 2>&1"


rule write_vasp_inputs:
    input:
        unpack(selected_frames),
        script=script("write_vasp_inputs"),
        presets="resources/presets/vasp.yaml",
    output:
        inputs=directory("results/{system}/labels/{dataset}/inputs"),
    log:
        "logs/write_vasp_inputs/{system}/{dataset}.log",
    wildcard_constraints:
        dataset=labelled_by("vasp"),
    conda:
        "../envs/dft.yaml"
    params:
        flags=vasp_flags,
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " --selection {input.selection:q}"
        " --presets {input.presets:q}"
        " {params.flags}"
        " --inputs {output.inputs:q}"
        " > {log:q} 2>&1"


rule label_vasp:
    input:
        script=script("label_vasp"),
        inputs="results/{system}/labels/{dataset}/inputs",
    output:
        table="results/{system}/labels/{dataset}/runs/batch-{index}.csv",
    log:
        "logs/label_vasp/{system}/{dataset}/{index}.log",
    wildcard_constraints:
        dataset=labelled_by("vasp"),
    conda:
        "../envs/dft.yaml"
    resources:
        # as in label_espresso
        mpi="",
    params:
        indices=batch,
        runs=runs_of,
        flags=lambda w: as_flags(labels_of(w)["vasp"], "potcars", "executable"),
    shell:
        "python {input.script:q}"
        " --inputs {input.inputs:q}"
        " --indices {params.indices}"
        " {params.flags}"
        " --launcher {resources.mpi:q}"
        " --runs {params.runs:q}"
        " --table {output.table:q}"
        " > {log:q} 2>&1"


rule write_vasp_training:
    input:
        script=script("write_vasp_training"),
        structure=training_start,
        presets="resources/presets/vasp.yaml",
    output:
        training=directory("results/{system}/labels/{dataset}/training"),
    log:
        "logs/write_vasp_training/{system}/{dataset}.log",
    conda:
        "../envs/dft.yaml"
    params:
        flags=vasp_flags,
        plan=vasp_training_flags,
    shell:
        "python {input.script:q}"
        " --structure {input.structure:q}"
        " --presets {input.presets:q}"
        " {params.flags}"
        " {params.plan}"
        " --training {output.training:q}"
        " > {log:q} 2>&1"


rule compute_vasp_atom_references:
    input:
        script=script("compute_vasp_atom_references"),
        frames=structures_of,
        presets="resources/presets/vasp.yaml",
    output:
        references="results/{system}/labels/{dataset}/atom_references.json",
    log:
        "logs/compute_vasp_atom_references/{system}/{dataset}.log",
    wildcard_constraints:
        dataset=labelled_by("vasp"),
    conda:
        "../envs/dft.yaml"
    resources:
        mpi="",
    params:
        flags=vasp_flags,
        program=lambda w: as_flags(labels_of(w)["vasp"], "potcars", "executable"),
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " --presets {input.presets:q}"
        " {params.flags}"
        " {params.program}"
        " --launcher {resources.mpi:q}"
        " --references {output.references:q}"
        " > {log:q} 2>&1"


rule compute_convergence:
    input:
        script=script("compute_convergence"),
        inputs="results/{system}/labels/{dataset}/inputs",
    output:
        convergence="results/{system}/labels/{dataset}/convergence.csv",
    log:
        "logs/compute_convergence/{system}/{dataset}.log",
    wildcard_constraints:
        dataset=labelled_by("precomputed", "espresso"),
    conda:
        "../envs/dft.yaml"
    resources:
        mpi="",
    params:
        flags=lambda w: espresso_flags(w, "pools"),
        grids=lambda w: as_flags(labels_of(w)["espresso"]["convergence"], "cutoffs_Ry", "meshes"),
    shell:
        "python {input.script:q}"
        " --frames {input.inputs:q}/0000/frame.extxyz"
        " {params.flags}"
        " {params.grids}"
        " --launcher {resources.mpi:q}"
        " --convergence {output.convergence:q}"
        " > {log:q} 2>&1"


rule compute_atom_references:
    input:
        script=script("compute_atom_references"),
        frames=structures_of,
    output:
        references="results/{system}/labels/{dataset}/atom_references.json",
    log:
        "logs/compute_atom_references/{system}/{dataset}.log",
    wildcard_constraints:
        dataset=labelled_by("precomputed", "espresso"),
    conda:
        "../envs/dft.yaml"
    resources:
        mpi="",
    params:
        flags=lambda w: as_flags(labels_of(w)["espresso"], *CUTOFFS, *SCF),
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " {params.flags}"
        " --launcher {resources.mpi:q}"
        " --references {output.references:q}"
        " > {log:q} 2>&1"


rule ingest_labels:
    input:
        script=script("ingest_labels"),
        sources=label_sources,
        host=lambda w: config["systems"][w.system]["host"].get("file", []),
    output:
        frames="results/{system}/labels/{dataset}/accepted.extxyz",
        rejected="results/{system}/labels/{dataset}/rejected.csv",
    log:
        "logs/ingest_labels/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        sources=frame_sources,
        flags=ingest_flags,
        elements=elements_of,
        host=input_flags("host"),
    shell:
        "python {input.script:q}"
        " --source {params.sources}"
        " {params.flags}"
        " {params.elements}"
        " {params.host}"
        " --system {wildcards.system:q}"
        " --frames {output.frames:q}"
        " --rejected {output.rejected:q}"
        " > {log:q} 2>&1"


rule select_held_out:
    input:
        script=script("select_held_out"),
        frames="results/{system}/labels/{dataset}/accepted.extxyz",
    output:
        candidates="results/{system}/labels/{dataset}/candidates.extxyz",
        held_out="results/{system}/labels/{dataset}/held_out.extxyz",
    log:
        "logs/select_held_out/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(config["datasets"][w.dataset], "test_fraction", "gap_frames"),
        seed=lambda w: seed("held out", w.dataset),
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " {params.flags}"
        " --seed {params.seed}"
        " --candidates {output.candidates:q}"
        " --held-out {output.held_out:q}"
        " > {log:q} 2>&1"
