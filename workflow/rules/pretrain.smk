# Masked-autoencoder pretraining. Checkpoints live in models/<run>/checkpoints and are not
# outputs, because Snakemake deletes the outputs of a job that was killed.
#
# Training and evaluation use one CPU thread: with more, sums are taken in another order and
# end in other bytes, and on a tiny model the threads cost more than they bring.


rule pretrain_model:
    input:
        index=study.pattern("shards_index"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
    output:
        model=study.pattern("model"),
        log=study.pattern("model_log"),
    log:
        "logs/pretrain.log",
    benchmark:
        "benchmarks/pretrain.tsv"
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
        options=study.options("pretrain"),
        code=study.code("pretrain"),
        launcher=study.pretraining.command,
    message:
        "pretrain"
    shell:
        "{params.launcher} pretrain --requeue --threads {threads} --params {params.options:q}"
        " > {log:q} 2>&1"
