# One page for the study, one for its reviewers, and the last word on what failed.


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


# After everything, for it compares every file with what its readers have recorded of it.
rule write_reproducibility:
    input:
        report=study.pattern("report"),
        cohort=study.pattern("cohort"),
        finetuned=study.finetuned,
        evaluations=EVALUATIONS,
    output:
        page=report(
            study.pattern("reproducibility"),
            caption="../report/reproducibility.rst",
            category="Study",
        ),
        crate=study.pattern("crate"),
    log:
        "logs/reproducibility.log",
    benchmark:
        "benchmarks/reproducibility.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        options=study.options("reproducibility"),
        code=study.code("reproducibility"),
    message:
        "reproducibility: are all files still what was recorded of them?"
    shell:
        "brainlm reproducibility --params {params.options:q} > {log:q} 2>&1"


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
