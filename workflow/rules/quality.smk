# One page on the quality of all recordings. It needs no cohort, so that it is there when too many
# recordings are lost for one.


rule write_quality_page:
    input:
        recordings=study.pattern("recordings"),
        atlas_table=study.pattern("atlas_table"),
        recordings_done=study.parcellations,
        pages=expand(study.pattern("qc_batch"), batch=study.batches()),
        exclude_list=study.exclude_list(),
        split_table=study.split_table(),
    output:
        page=report(
            study.pattern("quality_page"),
            caption="../report/quality.rst",
            category="Study",
        ),
        table=study.pattern("quality_table"),
    log:
        "logs/qc-page.log",
    benchmark:
        "benchmarks/qc-page.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("qc-page"),
        code=study.code("qc-page"),
        splits=study.split_content(),
        excluded=study.exclude_content(),
    message:
        "quality of all recordings"
    shell:
        "brainlm qc-page --params {params.options:q} > {log:q} 2>&1"
