# The paper's tables and figures, of whatever tasks the config asks for.


rule write_evaluation_page:
    input:
        study.evaluations,
    output:
        page=study.pattern("evaluation_page"),
        results=study.pattern("results"),
    log:
        "logs/evaluation-page.log",
    benchmark:
        "benchmarks/evaluation-page.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("evaluation-page"),
        code=study.code("evaluation-page"),
    message:
        "the evaluation's page"
    shell:
        "brainlm evaluation-page --params {params.options:q} > {log:q} 2>&1"
