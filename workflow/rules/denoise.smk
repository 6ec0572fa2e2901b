# Nuisance regression and temporal filtering of the normalised series.


rule denoise_bold:
    input:
        preproc_bold=study.pattern("preproc_bold"),
        mni_mask=study.pattern("mni_mask"),
        confounds=study.pattern("confounds"),
    output:
        denoised_bold=volatile(study.pattern("denoised_bold")),
        carpet=study.pattern("carpet"),
    log:
        "logs/denoise/{folder}/{recording}.log",
    benchmark:
        "benchmarks/denoise/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.brain_mb(wildcards, 1) * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("denoise"),
        code=study.code("denoise"),
    message:
        "denoise {wildcards.recording}"
    shell:
        "brainlm denoise {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
