# A run that another pipeline preprocessed, in the files that later stages read.
from brainlm.dag_ready import ready_content, ready_inputs


rule adopt_bold:
    input:
        lambda wildcards: ready_inputs(study, wildcards),
    output:
        preproc_bold=volatile(study.pattern("preproc_bold")),
        mni_mask=study.pattern("mni_mask"),
        mni_boldref=study.pattern("mni_boldref"),
        motion=study.pattern("motion"),
        confounds=study.pattern("confounds"),
    log:
        "logs/adopt/{folder}/{recording}.log",
    benchmark:
        "benchmarks/adopt/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.brain_mb(wildcards, 2) * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("adopt"),
        code=study.code("adopt"),
        content=lambda wildcards: ready_content(study, wildcards),
    message:
        "adopt {wildcards.recording}"
    shell:
        "brainlm adopt {wildcards.recording} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
