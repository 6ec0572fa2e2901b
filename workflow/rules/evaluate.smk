# Metrics on the held-out subjects, with simple baselines beside them.


rule evaluate_reconstruction:
    input:
        index=study.pattern("shards_index"),
        model=study.pattern("model"),
    output:
        metrics=study.pattern("reconstruction"),
        traces=study.pattern("reconstruction_traces"),
        whole=study.whole_recordings,
    log:
        "logs/evaluate-reconstruction.log",
    benchmark:
        "benchmarks/evaluate-reconstruction.tsv"
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
        options=study.options("evaluate-reconstruction"),
        code=study.code("evaluate-reconstruction"),
    message:
        "evaluate masked reconstruction"
    shell:
        "brainlm evaluate-reconstruction --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule predict_label:
    input:
        index=study.pattern("shards_index"),
        model=study.windows_of,
    output:
        study.pattern("label_network"),
    log:
        "logs/predict-label-{target}-{method}.log",
    benchmark:
        "benchmarks/predict-label-{target}-{method}.tsv"
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
        options=study.options("predict-label"),
        code=study.code("predict-label"),
    message:
        "{wildcards.target} by {wildcards.method}"
    shell:
        "brainlm predict-label --target {wildcards.target} --method {wildcards.method} --requeue"
        " --threads {threads} --params {params.options:q} > {log:q} 2>&1"


rule evaluate_clinical:
    input:
        index=study.pattern("shards_index"),
        pretrained=study.pattern("model"),
        model=study.pattern("finetuned"),
        embeddings=study.pattern("embeddings"),
        networks=study.label_networks,
    output:
        metrics=study.pattern("clinical"),
        predictions=study.pattern("clinical_predictions"),
    log:
        "logs/evaluate-clinical-{target}.log",
    benchmark:
        "benchmarks/evaluate-clinical-{target}.tsv"
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
        options=study.options("evaluate-clinical"),
        code=study.code("evaluate-clinical"),
    message:
        "evaluate {wildcards.target}"
    shell:
        "brainlm evaluate-clinical --target {wildcards.target} --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"


rule check_phantom:
    input:
        cohort=study.pattern("cohort"),
    output:
        study.pattern("phantom_check"),
    log:
        "logs/phantom-check.log",
    benchmark:
        "benchmarks/phantom-check.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("phantom-check"),
        code=study.code("phantom-check"),
    message:
        "compare with the phantom's truth"
    shell:
        "brainlm phantom-check --params {params.options:q} > {log:q} 2>&1"
