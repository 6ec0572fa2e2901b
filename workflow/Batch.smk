# One batch of recordings from raw data to parcels: what a job of rule process_batch runs, by
# `brainlm run-batch`. It is no place to start from: the workflow is ../Snakefile.
configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/atlas.smk"


if study.config.engine == "fmriprep":

    include: "rules/fmriprep.smk"


include: "rules/recordings.smk"
include: "rules/qc.smk"


rule batch:
    default_target: True
    input:
        study.each("timeseries"),
        study.each("motion"),
        expand(study.pattern("qc_batch"), batch=study.batches()),
    localrule: True
