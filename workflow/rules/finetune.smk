# Fine-tuning of the pretrained model on one label, or on forecasting. As in pretraining, checkpoints
# are not outputs: a job that was killed goes on from them.


ruleorder: finetune_forecast > finetune_forecast_untrained > finetune_model  # no label is called forecast


rule finetune_model:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        model=study.pattern("finetuned"),
    log:
        "logs/finetune-{target}.log",
    benchmark:
        "benchmarks/finetune-{target}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.finetuning.resources,
        mem_mb=lambda wildcards, attempt: study.finetuning.mem_mb * attempt,
        runtime=lambda wildcards, attempt: 480,
    params:
        options=study.options("finetune"),
        code=study.code("finetune"),
        launcher=study.finetuning.command,
    message:
        "finetune on {wildcards.target}"
    shell:
        "{params.launcher} finetune --target {wildcards.target} --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule finetune_forecast:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        model=study.pattern("forecaster"),
    log:
        "logs/finetune-forecast.log",
    benchmark:
        "benchmarks/finetune-forecast.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.finetuning.resources,
        mem_mb=lambda wildcards, attempt: study.finetuning.mem_mb * attempt,
        runtime=lambda wildcards, attempt: 480,
    params:
        options=study.options("finetune"),
        code=study.code("finetune"),
        launcher=study.finetuning.command,
    message:
        "finetune on forecasting"
    shell:
        "{params.launcher} finetune --task forecast --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule finetune_forecast_untrained:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        model=study.pattern("untrained_forecaster"),
    log:
        "logs/finetune-forecast-untrained.log",
    benchmark:
        "benchmarks/finetune-forecast-untrained.tsv"
    conda:
        "../../environment.yml"
    container:
        study.gpu_image
    threads: 1
    resources:
        **study.finetuning.resources,
        mem_mb=lambda wildcards, attempt: study.finetuning.mem_mb * attempt,
        runtime=lambda wildcards, attempt: 480,
    params:
        options=study.options("finetune"),
        code=study.code("finetune"),
        launcher=study.finetuning.command,
    message:
        "learn to forecast from random weights"
    shell:
        "{params.launcher} finetune --task forecast-untrained --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"
