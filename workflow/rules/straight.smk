# From raw BOLD straight to parcels, for resample.output: parcels. One rule makes what four make
# otherwise (resample_bold, compute_confounds, denoise_bold, parcellate_bold), and goes before them.


ruleorder:
    resample_to_parcels
    > resample_bold
    > compute_confounds
    > find_components
    > denoise_bold
    > parcellate_bold


rule resample_to_parcels:
    input:
        motion=study.pattern("motion"),
        hmc_xfm=study.pattern("hmc_xfm"),
        boldref_to_mni=study.pattern("boldref_to_mni"),
        warp=study.warp_of,
        field=study.field_of,
        bold=study.raw_bold,
        review=study.review_of,
        atlas_image=study.pattern("atlas_image"),
        atlas_table=study.pattern("atlas_table"),
    output:
        **study.component_files(),
        mni_mask=study.pattern("mni_mask"),
        confounds=study.pattern("confounds"),
        carpet=study.pattern("carpet"),
        timeseries=study.pattern("timeseries"),
        coverage=study.pattern("coverage"),
    log:
        "logs/resample-to-parcels/{folder}/{recording}.log",
    benchmark:
        "benchmarks/resample-to-parcels/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.straight_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: 90 * attempt,
    params:
        options=study.options("resample-to-parcels"),
        code=study.code("resample-to-parcels"),
        content=study.content,
        classifier=study.classifier_content(),
    message:
        "resample-to-parcels {wildcards.recording}"
    shell:
        "brainlm resample-to-parcels {wildcards.recording} --threads {threads}"
        " --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
