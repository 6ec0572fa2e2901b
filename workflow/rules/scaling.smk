# Scaling curves: each size on each share of the train subjects, trained and scored by itself.


rule train_scaling:
    input:
        index=study.pattern("shards_index"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
    output:
        model=study.pattern("scaled_model"),
        log=study.pattern("scaled_log"),
        sums=study.pattern("scaling_sums"),
    log:
        "logs/train-scaling-{point}.log",
    benchmark:
        "benchmarks/train-scaling-{point}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.pretraining.resources,
        mem_mb=lambda wildcards, attempt: study.pretraining.mem_mb * attempt,
        runtime=lambda wildcards, attempt: 1440,
    params:
        options=study.options_of_point("train-scaling"),
        code=study.code("train-scaling"),
        launcher=study.pretraining.command,
    message:
        "scaling curves: {wildcards.point}"
    shell:
        "{params.launcher} train-scaling --point {wildcards.point} --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule compare_scaling:
    input:
        study.scaling_sums,
    output:
        study.pattern("scaling"),
    log:
        "logs/compare-scaling.log",
    benchmark:
        "benchmarks/compare-scaling.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("compare-scaling"),
        code=study.code("compare-scaling"),
    message:
        "compare scaling"
    shell:
        "brainlm compare-scaling --params {params.options:q} > {log:q} 2>&1"
