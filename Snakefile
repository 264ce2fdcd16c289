"""Hopline: from a host crystal and a mobile species to an Arrhenius plot with honest error bars."""

from snakemake.utils import min_version

min_version("9.0")

if not config:

    configfile: "config/config.yaml"


include: "rules/checks.smk"
include: "rules/training_checks.smk"
include: "rules/common.smk"
include: "rules/configurations.smk"
include: "rules/labels.smk"
include: "rules/sampling.smk"
include: "rules/replay.smk"
include: "rules/potentials.smk"
include: "rules/dynamics.smk"
include: "rules/batches.smk"
include: "rules/diffusion.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        targets(),


onstart:
    write_resolved_config()
