# Nuisance regression and temporal filtering of the normalised series.
from brainlm.dag_ready import reused_components


# Asked for only where denoise.method is aroma.
rule find_components:
    input:
        preproc_bold=study.pattern("preproc_bold"),
        mni_mask=study.pattern("mni_mask"),
        confounds=study.pattern("confounds"),
        reused=lambda wildcards: reused_components(study, wildcards),
    output:
        ica_mixing=study.pattern("ica_mixing"),
        ica_maps=study.pattern("ica_maps"),
        aroma_metrics=study.pattern("aroma_metrics"),
    log:
        "logs/ica/{folder}/{recording}.log",
    benchmark:
        "benchmarks/ica/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.brain_mb(wildcards, 3) * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("ica"),
        code=study.code("ica"),
        classifier=study.classifier_content(),
    message:
        "ica {wildcards.recording}"
    shell:
        "brainlm ica {wildcards.recording} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


rule denoise_bold:
    input:
        preproc_bold=study.pattern("preproc_bold"),
        mni_mask=study.pattern("mni_mask"),
        confounds=study.pattern("confounds"),
        components=study.components_of,
    output:
        denoised_bold=volatile(study.pattern("denoised_bold")),
        carpet=study.pattern("carpet"),
    log:
        "logs/denoise/{folder}/{recording}.log",
    benchmark:
        "benchmarks/denoise/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
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
        "brainlm denoise {wildcards.recording} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
