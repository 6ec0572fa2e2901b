# One page for the study, and the last word on what failed.


rule write_report:
    input:
        cohort=study.pattern("cohort"),
        evaluations=EVALUATIONS,
        figures=expand(study.pattern("qc_batch"), batch=study.batches()),
    output:
        report=report(
            study.pattern("report"), caption="../report/study.rst", category="Study"
        ),
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("report"),
        code=study.code("report"),
    message:
        "report"
    shell:
        "brainlm report --params {params.options:q} > {log:q} 2>&1"


rule audit_recordings:
    input:
        cohort=study.pattern("cohort"),
        exclusions=study.pattern("exclusions"),
    output:
        touch(AUDIT),
    log:
        "logs/audit.log",
    conda:
        "../../environment.yml"
    container:
        study.image
    message:
        "audit: was any eligible recording given up?"
    shell:
        "brainlm audit > {log:q} 2>&1"
