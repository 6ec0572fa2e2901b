# The space of the recordings' vectors: no network is run, so no GPU is asked for.


rule evaluate_latent:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
        embeddings=study.pattern("embeddings"),
    output:
        metrics=study.pattern("latent"),
        coordinates=study.pattern("latent_coordinates"),
    log:
        "logs/evaluate-latent.log",
    benchmark:
        "benchmarks/evaluate-latent.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        options=study.options("evaluate-latent"),
        code=study.code("evaluate-latent"),
    message:
        "evaluate the latent space"
    shell:
        "brainlm evaluate-latent --threads {threads} --params {params.options:q} > {log:q} 2>&1"
