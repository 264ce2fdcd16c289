"""Diffusion: MSD and D of each temperature with a verdict, the Arrhenius fit, and pair correlations.

Needs the replicas of dynamics/; makes diffusion/{potential}/{composition}/{temperature_K}K.{json,curve.csv,rdf.csv}
and arrhenius.json.
"""

DIFFUSION = "results/{system}/diffusion/{potential}/{composition}"


rule estimate_diffusivity:
    input:
        script=script("estimate_diffusivity"),
        trajectories=expand(f"{FOLDER}/nve-{{replica}}.h5", replica=range(1, N_REPLICAS + 1), allow_missing=True),
        sidecars=expand(f"{FOLDER}/nve-{{replica}}.json", replica=range(1, N_REPLICAS + 1), allow_missing=True),
    output:
        diffusivity=f"{DIFFUSION}/{{temperature_K}}K.json",
        curve=f"{DIFFUSION}/{{temperature_K}}K.curve.csv",
    log:
        "logs/estimate_diffusivity/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        "../envs/analysis.yaml"
    params:
        species=lambda w: config["systems"][w.system]["mobile"],
        flags=as_flags(config["diffusion"]),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --trajectory {input.trajectories:q}"
        " --species {params.species:q}"
        " --temperature-K {wildcards.temperature_K}"
        " {params.flags}"
        " --diffusivity {output.diffusivity:q}"
        " --curve {output.curve:q}"
        " > {log:q} 2>&1"


rule fit_arrhenius:
    input:
        script=script("fit_arrhenius"),
        diffusivities=lambda w: expand(
            f"{DIFFUSION}/{{temperature_K}}K.json", **w, temperature_K=temperatures_of(w.potential, w.system)
        ),
    output:
        arrhenius=f"{DIFFUSION}/arrhenius.json",
    log:
        "logs/fit_arrhenius/{system}/{potential}/{composition}.log",
    conda:
        "../envs/analysis.yaml"
    shell:
        "python {input.script:q}"
        " --diffusivity {input.diffusivities:q}"
        " --arrhenius {output.arrhenius:q}"
        " > {log:q} 2>&1"


rule compute_pair_correlations:
    input:
        script=script("compute_pair_correlations"),
        trajectories=expand(f"{FOLDER}/nve-{{replica}}.h5", replica=range(1, N_REPLICAS + 1), allow_missing=True),
        sidecars=expand(f"{FOLDER}/nve-{{replica}}.json", replica=range(1, N_REPLICAS + 1), allow_missing=True),
    output:
        correlations=f"{DIFFUSION}/{{temperature_K}}K.rdf.csv",
    log:
        "logs/compute_pair_correlations/{system}/{potential}/{composition}/{temperature_K}K.log",
    conda:
        "../envs/analysis.yaml"
    params:
        flags=as_flags(config["correlations"]),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --trajectory {input.trajectories:q}"
        " {params.flags}"
        " --correlations {output.correlations:q}"
        " > {log:q} 2>&1"
