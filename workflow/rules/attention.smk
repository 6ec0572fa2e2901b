# What the model attends to, and how groups differ in it.


rule evaluate_attention:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        metrics=study.pattern("attention"),
        maps=study.pattern("attention_maps"),
    log:
        "logs/evaluate-attention.log",
    benchmark:
        "benchmarks/evaluate-attention.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.evaluating.resources,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        options=study.options("evaluate-attention"),
        code=study.code("evaluate-attention"),
    message:
        "look at attention"
    shell:
        "brainlm evaluate-attention --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"
