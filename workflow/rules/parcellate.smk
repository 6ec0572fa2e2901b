# The mean series of each parcel.


rule parcellate_bold:
    input:
        denoised_bold=study.pattern("denoised_bold"),
        mni_mask=study.pattern("mni_mask"),
        atlas_image=study.pattern("atlas_image"),
        atlas_table=study.pattern("atlas_table"),
    output:
        timeseries=study.pattern("timeseries"),
        coverage=study.pattern("coverage"),
    log:
        "logs/parcellate/{folder}/{recording}.log",
    benchmark:
        "benchmarks/parcellate/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.parcellate_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        options=study.options("parcellate"),
        code=study.code("parcellate"),
    message:
        "parcellate {wildcards.recording}"
    shell:
        "brainlm parcellate {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
