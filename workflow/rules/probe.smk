# Plain models on the vectors of the frozen model: no network is run, so no GPU is asked for.


rule probe_label:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
        embeddings=study.pattern("embeddings"),
    output:
        metrics=study.pattern("probe"),
        predictions=study.pattern("probe_predictions"),
    log:
        "logs/probe-{target}.log",
    benchmark:
        "benchmarks/probe-{target}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        options=study.options("probe"),
        code=study.code("probe"),
    message:
        "probe {wildcards.target}"
    shell:
        "brainlm probe --target {wildcards.target} --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"
