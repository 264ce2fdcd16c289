"""DFT labels: ingest what one has, or run pw.x on the selected frames; then split by whole trajectories.

Makes labels/{dataset}/{accepted.extxyz, rejected.csv, candidates.extxyz, held_out.extxyz}, the pw.x inputs in
labels/{dataset}/inputs (espresso: of the selected frames; precomputed: of the frames worth labelling next), and on
request labels/{dataset}/convergence.csv.
"""


def labels_of(wildcards):
    return config["datasets"][wildcards.dataset]["labels"]


def label_sources(wildcards):
    """Return the finished pw.x runs of a live dataset, or the files that the config names."""
    if labels_of(wildcards)["mode"] == "espresso":
        n_frames = config["datasets"][wildcards.dataset]["direct"]["frames"]
        folder = f"results/{wildcards.system}/labels/{wildcards.dataset}/runs"
        return [f"{folder}/{index:04d}/pw.out" for index in range(n_frames)]
    return sources_of(wildcards.dataset)


def selected_frames(wildcards):
    """Return the pool and the picks that pw.x inputs are written for."""
    encoder = config["datasets"][wildcards.dataset]["direct"]["encoder"]
    picks = "selection" if labels_of(wildcards)["mode"] == "espresso" else "next"
    folder = f"results/{wildcards.system}/sampling"
    return {
        "frames": f"{folder}/exploration-{encoder}/frames.extxyz",
        "selection": f"{folder}/{wildcards.dataset}/{picks}.csv",
    }


ESPRESSO_FLAGS = (
    "pseudopotentials",
    "wavefunction_cutoff_Ry",
    "density_cutoff_Ry",
    "kpoints",
    "kpoints_shift",
    "smearing",
    "smearing_width_Ry",
    "scf_threshold_Ry",
    "mixing_beta",
    "max_scf_steps",
)


rule write_espresso_inputs:
    input:
        unpack(selected_frames),
        script=script("write_espresso_inputs"),
    output:
        inputs=directory("results/{system}/labels/{dataset}/inputs"),
    log:
        "logs/write_espresso_inputs/{system}/{dataset}.log",
    conda:
        "../envs/dft.yaml"
    params:
        flags=lambda w: as_flags(labels_of(w)["espresso"], *ESPRESSO_FLAGS),
        # inputs of frames worth labelling next may be run elsewhere, where the pseudopotentials are
        missing=lambda w: "" if labels_of(w)["mode"] == "espresso" else "--allow-missing-pseudopotentials",
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
        output="results/{system}/labels/{dataset}/runs/{index}/pw.out",
    log:
        "logs/label_espresso/{system}/{dataset}/{index}.log",
    conda:
        "../envs/dft.yaml"
    threads: lambda w: labels_of(w)["espresso"]["processes"]
    params:
        flags=lambda w: as_flags(labels_of(w)["espresso"], "launcher", "pools"),
    shell:
        "python {input.script:q}"
        " --input {input.inputs:q}/{wildcards.index}/pw.in"
        " {params.flags}"
        " --output {output.output:q}"
        " > {log:q} 2>&1"


rule compute_convergence:
    input:
        script=script("compute_convergence"),
        inputs="results/{system}/labels/{dataset}/inputs",
    output:
        convergence="results/{system}/labels/{dataset}/convergence.csv",
    log:
        "logs/compute_convergence/{system}/{dataset}.log",
    conda:
        "../envs/dft.yaml"
    threads: lambda w: labels_of(w)["espresso"]["processes"]
    params:
        flags=lambda w: as_flags(labels_of(w)["espresso"], *ESPRESSO_FLAGS, "launcher", "pools"),
        grids=lambda w: as_flags(labels_of(w)["espresso"]["convergence"], "cutoffs_Ry", "meshes"),
    shell:
        "python {input.script:q}"
        " --frames {input.inputs:q}/0000/frame.extxyz"
        " {params.flags}"
        " {params.grids}"
        " --convergence {output.convergence:q}"
        " > {log:q} 2>&1"


rule compute_atom_references:
    input:
        script=script("compute_atom_references"),
        frames=lambda w: [
            f"results/{w.system}/structures/{name}.extxyz" for name in config["systems"][w.system]["compositions"]
        ],
    output:
        references="results/{system}/labels/{dataset}/atom_references.json",
    log:
        "logs/compute_atom_references/{system}/{dataset}.log",
    conda:
        "../envs/dft.yaml"
    threads: lambda w: labels_of(w)["espresso"]["processes"]
    params:
        flags=lambda w: as_flags(
            labels_of(w)["espresso"],
            "launcher",
            *(name for name in ESPRESSO_FLAGS if not name.startswith(("kpoints", "smearing"))),
        ),
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " {params.flags}"
        " --references {output.references:q}"
        " > {log:q} 2>&1"


rule ingest_labels:
    input:
        script=script("ingest_labels"),
        sources=label_sources,
    output:
        frames="results/{system}/labels/{dataset}/accepted.extxyz",
        rejected="results/{system}/labels/{dataset}/rejected.csv",
    log:
        "logs/ingest_labels/{system}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(
            labels_of(w), "format", "max_rejected_fraction", "min_distance_A", "max_force_eV_per_A"
        ),
    shell:
        "python {input.script:q}"
        " --source {input.sources:q}"
        " {params.flags}"
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
        flags=lambda w: as_flags(config["datasets"][w.dataset], "test_fraction"),
        seed=lambda w: seed("held out", w.dataset),
    shell:
        "python {input.script:q}"
        " --frames {input.frames:q}"
        " {params.flags}"
        " --seed {params.seed}"
        " --candidates {output.candidates:q}"
        " --held-out {output.held_out:q}"
        " > {log:q} 2>&1"
