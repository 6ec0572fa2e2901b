# A model that BrainLM's authors released, in the place of pretraining.


rule import_checkpoint:
    input:
        index=study.pattern("shards_index"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
    output:
        model=study.pattern("model"),
    log:
        "logs/import-checkpoint.log",
    benchmark:
        "benchmarks/import-checkpoint.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("import-checkpoint"),
        code=study.code("import-checkpoint"),
    message:
        "import-checkpoint"
    shell:
        "brainlm import-checkpoint --params {params.options:q} > {log:q} 2>&1"
