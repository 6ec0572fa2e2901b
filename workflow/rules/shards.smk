# The cohort: who is in, who trains; the scaler; the tensors that training reads.


rule select_cohort:
    input:
        recordings=study.pattern("recordings"),
        atlas_table=study.pattern("atlas_table"),
        timeseries=study.each("timeseries"),
        motion=study.each("motion"),
        split_table=study.split_table(),
    output:
        cohort=study.pattern("cohort"),
        exclusions=study.pattern("exclusions"),
        splits=study.pattern("splits"),
    log:
        "logs/cohort.log",
    benchmark:
        "benchmarks/cohort.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("cohort"),
        code=study.code("cohort"),
    message:
        "cohort: quality and splits"
    shell:
        "brainlm cohort --params {params.options:q} > {log:q} 2>&1"


rule fit_scaler:
    input:
        cohort=study.pattern("cohort"),
        atlas_table=study.pattern("atlas_table"),
    output:
        scaler=study.pattern("scaler"),
    log:
        "logs/scale.log",
    benchmark:
        "benchmarks/scale.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        options=study.options("scale"),
        code=study.code("scale"),
    message:
        "scale: median and IQR of each parcel over the train split"
    shell:
        "brainlm scale --params {params.options:q} > {log:q} 2>&1"


rule write_shards:
    input:
        cohort=study.pattern("cohort"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
    output:
        index=study.pattern("shards_index"),
    log:
        "logs/shards.log",
    benchmark:
        "benchmarks/shards.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        options=study.options("shards"),
        code=study.code("shards"),
    message:
        "shards"
    shell:
        "brainlm shards --params {params.options:q} > {log:q} 2>&1"
