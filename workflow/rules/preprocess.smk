# From raw BOLD and T1w to the standard space, one recording at a time.


rule estimate_motion:
    input:
        bold=study.raw_bold,
    output:
        motion=study.pattern("motion"),
        hmc_xfm=study.pattern("hmc_xfm"),
        boldref=study.pattern("boldref"),
        foreground_mask=study.pattern("foreground_mask"),
    log:
        "logs/motion/{folder}/{recording}.log",
    benchmark:
        "benchmarks/motion/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.raw_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("motion"),
        code=study.code("motion"),
        content=study.content,
    message:
        "motion {wildcards.recording}"
    shell:
        "brainlm motion {wildcards.recording} --threads {threads} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


rule normalize_anat:
    input:
        t1w=study.raw_t1w,
    output:
        t1w_to_mni=study.pattern("t1w_to_mni"),
        t1w_brain=study.pattern("t1w_brain"),
        t1w_to_mni_warp=study.anat_warp(),
    log:
        "logs/normalize-anat/{anat_folder}/{anat}.log",
    benchmark:
        "benchmarks/normalize-anat/{anat_folder}/{anat}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("normalize-anat"),
        code=study.code("normalize-anat"),
        content=study.anat_content,
    message:
        "normalize-anat {wildcards.anat}"
    shell:
        "brainlm normalize-anat {wildcards.anat}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


# Asked for only by runs whose distortion is corrected.
rule estimate_fieldmap:
    input:
        boldref=study.pattern("boldref"),
        foreground_mask=study.pattern("foreground_mask"),
        sources=study.field_sources,
    output:
        fieldmap=study.pattern("fieldmap"),
        unwarped_boldref=study.pattern("unwarped_boldref"),
        unwarped_mask=study.pattern("unwarped_mask"),
    log:
        "logs/fieldmap/{folder}/{recording}.log",
    benchmark:
        "benchmarks/fieldmap/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        options=study.options("fieldmap"),
        code=study.code("fieldmap"),
        content=study.field_content,
    message:
        "fieldmap {wildcards.recording}"
    shell:
        "brainlm fieldmap {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


# Asked for only by runs with a T1w.
rule coregister_bold:
    input:
        reference=study.reference_of,
        anat=study.anat_of,
    output:
        boldref_to_t1w=study.pattern("boldref_to_t1w"),
    log:
        "logs/coregister-bold/{folder}/{recording}.log",
    benchmark:
        "benchmarks/coregister-bold/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        options=study.options("coregister-bold"),
        code=study.code("coregister-bold"),
    message:
        "coregister-bold {wildcards.recording}"
    shell:
        "brainlm coregister-bold {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


rule normalize_bold:
    input:
        reference=study.reference_of,
        anat=study.anat_of,
        boldref_to_t1w=study.coregistration_of,
    output:
        boldref_to_mni=study.pattern("boldref_to_mni"),
        bold_mask=study.pattern("bold_mask"),
    log:
        "logs/normalize-bold/{folder}/{recording}.log",
    benchmark:
        "benchmarks/normalize-bold/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        options=study.options("normalize-bold"),
        code=study.code("normalize-bold"),
    message:
        "normalize-bold {wildcards.recording}"
    shell:
        "brainlm normalize-bold {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


# Asked for only by runs without a T1w, where the config says syn.
rule warp_bold:
    input:
        reference=study.reference_of,
        boldref_to_mni=study.pattern("boldref_to_mni"),
    output:
        boldref_to_mni_warp=study.pattern("boldref_to_mni_warp"),
    log:
        "logs/warp-bold/{folder}/{recording}.log",
    benchmark:
        "benchmarks/warp-bold/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        options=study.options("warp-bold"),
        code=study.code("warp-bold"),
    message:
        "warp-bold {wildcards.recording}"
    shell:
        "brainlm warp-bold {wildcards.recording}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


rule resample_bold:
    input:
        hmc_xfm=study.pattern("hmc_xfm"),
        boldref_to_mni=study.pattern("boldref_to_mni"),
        warp=study.warp_of,
        field=study.field_of,
        bold=study.raw_bold,
    output:
        preproc_bold=volatile(study.pattern("preproc_bold")),
        mni_mask=study.pattern("mni_mask"),
    log:
        "logs/resample/{folder}/{recording}.log",
    benchmark:
        "benchmarks/resample/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("resample"),
        code=study.code("resample"),
        content=study.content,
    message:
        "resample {wildcards.recording}"
    shell:
        "brainlm resample {wildcards.recording} --threads {threads}"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"


rule compute_confounds:
    input:
        motion=study.pattern("motion"),
        preproc_bold=study.pattern("preproc_bold"),
        mni_mask=study.pattern("mni_mask"),
    output:
        confounds=study.pattern("confounds"),
    log:
        "logs/confounds/{folder}/{recording}.log",
    benchmark:
        "benchmarks/confounds/{folder}/{recording}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: study.brain_mb(wildcards, 2) * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        options=study.options("confounds"),
        code=study.code("confounds"),
    message:
        "confounds {wildcards.recording}"
    shell:
        "brainlm confounds {wildcards.recording} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
