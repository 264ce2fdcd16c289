"""Replay sets: pre-training frames (MPtrj) that are mixed into fine-tunings, so that the potentials forget nothing.

Made once for all systems: replay/{replay}/{train,valid,test}.extxyz with replay.json, from files one has or from a
download that is checked by its hash. The downloaded file is kept in replay/{replay}/source/.
"""

from urllib.parse import urlsplit


def download_of(replay):
    """Return where a replay set's download lands; None where it comes from files one has."""
    download = config["replay"][replay].get("download")
    if download is None:
        return None
    return f"results/replay/{replay}/source/{Path(urlsplit(download['url']).path).name or 'download'}"


def replay_sources(wildcards):
    source = config["replay"][wildcards.replay].get("source", download_of(wildcards.replay))
    return listed(source)


def replay_flags(wildcards):
    """Spell how a replay set is selected, without what does not matter to its kind of selection."""
    section = config["replay"][wildcards.replay]
    elements = {name: symbols for name, symbols in section["elements"].items() if symbols}
    names = {*section} - {"source", "download", "elements"}
    if section["select"] == "random":
        names -= {"pool_frames", "encoder"}
    return as_flags({name: section[name] for name in names} | elements)


rule fetch_replay:
    input:
        script=script("fetch_replay"),
    output:
        # a file put there by hand is looked at, never deleted first
        source=update("results/replay/{replay}/source/{file}"),
    log:
        "logs/fetch_replay/{replay}/{file}.log",
    wildcard_constraints:
        replay=one_of([name for name in config["replay"] if download_of(name)]),
        file=one_of({Path(download_of(name)).name for name in config["replay"] if download_of(name)}),
    # nodes of a cluster often have no network, its login node has
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        flags=lambda w: as_flags(config["replay"][w.replay]["download"]),
    shell:
        "python {input.script:q}" " {params.flags}" " --source {output.source:q}" " > {log:q} 2>&1"


rule select_replay:
    input:
        script=script("select_replay"),
        source=replay_sources,
    output:
        train="results/replay/{replay}/train.extxyz",
        valid="results/replay/{replay}/valid.extxyz",
        test="results/replay/{replay}/test.extxyz",
        replay="results/replay/{replay}/replay.json",
    log:
        "logs/select_replay/{replay}.log",
    wildcard_constraints:
        replay=one_of(config["replay"]),
    # labels are read and frames are encoded: only the whole stack has both
    conda:
        "../envs/hopline.yaml"
    resources:
        gpu=lambda w: int(config["replay"][w.replay]["select"] != "random"),
    params:
        flags=replay_flags,
        seed=lambda w: seed("replay", w.replay),
    shell:
        "OMP_NUM_THREADS={threads} python {input.script:q}"
        " --source {input.source:q}"
        " {params.flags}"
        " --seed {params.seed}"
        " --train {output.train:q}"
        " --valid {output.valid:q}"
        " --test {output.test:q}"
        " --replay {output.replay:q}"
        " > {log:q} 2>&1"
