# A run that is already denoised: a CIFTI dense series, or a table of parcels.
from brainlm.dag_ready import ready_content, ready_inputs


rule adopt_parcels:
    input:
        lambda wildcards: ready_inputs(study, wildcards),
        atlas_table=study.pattern("atlas_table"),
    output:
        timeseries=study.pattern("timeseries"),
        coverage=study.pattern("coverage"),
        motion=study.pattern("motion"),
    log:
        "logs/adopt-parcels/{folder}/{recording}.log",
    benchmark:
        "benchmarks/adopt-parcels/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        options=study.options("adopt-parcels"),
        code=study.code("adopt-parcels"),
        content=lambda wildcards: ready_content(study, wildcards),
    message:
        "adopt-parcels {wildcards.recording}"
    shell:
        "brainlm adopt-parcels {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
