# Which functional network a parcel belongs to, told from what a recording shows of it.


rule evaluate_networks:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        metrics=study.pattern("networks"),
        predictions=study.pattern("networks_predictions"),
    log:
        "logs/evaluate-networks.log",
    benchmark:
        "benchmarks/evaluate-networks.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.evaluating.resources,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480,
    params:
        options=study.options("evaluate-networks"),
        code=study.code("evaluate-networks"),
    message:
        "tell functional networks"
    shell:
        "brainlm evaluate-networks --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"
