# From another pipeline's series straight to parcels, for resample.output: parcels. One rule makes
# what adopt_bold, denoise_bold and parcellate_bold make otherwise, and goes before them.


ruleorder: adopt_to_parcels > adopt_bold > find_components > denoise_bold > parcellate_bold


rule adopt_to_parcels:
    input:
        lambda wildcards: ready_inputs(study, wildcards),
        review=study.review_of,
        reused=lambda wildcards: reused_components(study, wildcards),
        atlas_image=study.pattern("atlas_image"),
        atlas_table=study.pattern("atlas_table"),
    output:
        **study.component_files(),
        mni_mask=study.pattern("mni_mask"),
        mni_boldref=study.pattern("mni_boldref"),
        motion=study.pattern("motion"),
        confounds=study.pattern("confounds"),
        carpet=study.pattern("carpet"),
        timeseries=study.pattern("timeseries"),
        coverage=study.pattern("coverage"),
    log:
        "logs/adopt-to-parcels/{folder}/{recording}.log",
    benchmark:
        "benchmarks/adopt-to-parcels/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.straight_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: 90 * attempt,
    params:
        options=study.options("adopt-to-parcels"),
        code=study.code("adopt-to-parcels"),
        content=lambda wildcards: ready_content(study, wildcards),
        classifier=study.classifier_content(),
    message:
        "adopt-to-parcels {wildcards.recording}"
    shell:
        "brainlm adopt-to-parcels {wildcards.recording} --threads {threads}"
        " --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
