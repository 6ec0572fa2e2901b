# A figure for each recording, drawn in batches.


rule draw_qc:
    input:
        study.batch_inputs,
    output:
        study.pattern("qc_batch"),
    log:
        "logs/qc-figure/batch-{batch}.log",
    benchmark:
        "benchmarks/qc-figure/batch-{batch}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("qc-figure"),
        code=study.code("qc-figure"),
        recordings=study.batch,
    message:
        "qc-figure, batch {wildcards.batch}"
    shell:
        "brainlm qc-figure {params.recordings} --batch {wildcards.batch}"
        " --params {params.options:q} > {log:q} 2>&1"
