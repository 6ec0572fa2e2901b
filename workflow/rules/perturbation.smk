# What the forecast does when the past of some parcels is changed.


rule evaluate_perturbation:
    input:
        index=study.pattern("shards_index"),
        model=study.perturbed_model,
    output:
        metrics=study.pattern("perturbation"),
        effects=study.pattern("perturbation_effects"),
    log:
        "logs/evaluate-perturbation.log",
    benchmark:
        "benchmarks/evaluate-perturbation.tsv"
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
        options=study.options("evaluate-perturbation"),
        code=study.code("evaluate-perturbation"),
    message:
        "evaluate perturbations"
    shell:
        "brainlm evaluate-perturbation --threads {threads}"
        " --params {params.options:q} > {log:q} 2>&1"
