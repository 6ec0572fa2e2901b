# What follows a stretch of a recording: the model beside other methods, each a job of its own.


rule score_forecast:
    input:
        index=study.pattern("shards_index"),
        model=study.forecast_model,
    output:
        study.pattern("forecast_sums"),
    log:
        "logs/score-forecast-{method}.log",
    benchmark:
        "benchmarks/score-forecast-{method}.tsv"
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
        options=study.options("score-forecast"),
        code=study.code("score-forecast"),
    message:
        "forecast by {wildcards.method}"
    shell:
        "brainlm score-forecast --method {wildcards.method} --requeue --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule compare_forecasts:
    input:
        sums=study.forecast_sums,
        index=study.pattern("shards_index"),
    output:
        metrics=study.pattern("forecast"),
        scores=study.pattern("forecast_scores"),
    log:
        "logs/compare-forecasts.log",
    benchmark:
        "benchmarks/compare-forecasts.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("compare-forecasts"),
        code=study.code("compare-forecasts"),
    message:
        "compare forecasts"
    shell:
        "brainlm compare-forecasts --params {params.options:q} > {log:q} 2>&1"
