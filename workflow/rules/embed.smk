# Vectors of all recordings, made once by the pretrained model.


rule embed_recordings:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        embeddings=study.pattern("embeddings"),
    log:
        "logs/embed.log",
    benchmark:
        "benchmarks/embed.tsv"
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
        options=study.options("embed"),
        code=study.code("embed"),
    message:
        "embed all recordings"
    shell:
        "brainlm embed --threads {threads} --params {params.options:q} > {log:q} 2>&1"
