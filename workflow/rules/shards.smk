# The cohort: who is in, who trains; the scaler; the tensors that training reads.


rule select_cohort:
    input:
        recordings=study.pattern("recordings"),
        atlas_table=study.pattern("atlas_table"),
        recordings_done=study.parcellations,
        split_table=study.split_table(),
        exclude_list=study.exclude_list(),
    output:
        cohort=study.pattern("cohort"),
        exclusions=study.pattern("exclusions"),
        splits=study.pattern("splits"),
        leakage=study.pattern("leakage"),
        plans=study.each_shard("shard_plan"),
    log:
        "logs/cohort.log",
    benchmark:
        "benchmarks/cohort.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("cohort"),
        code=study.code("cohort"),
        splits=study.split_content(),
        excluded=study.exclude_content(),
    message:
        "cohort: quality and splits"
    shell:
        "brainlm cohort --params {params.options:q} > {log:q} 2>&1"


rule bracket_scaler:
    input:
        plans=study.each_shard("shard_plan", study.fit_shards),
        atlas_table=study.pattern("atlas_table"),
    output:
        brackets=study.pattern("scaler_brackets"),
    log:
        "logs/scale-brackets.log",
    benchmark:
        "benchmarks/scale-brackets.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("scale-brackets"),
        code=study.code("scale-brackets"),
    message:
        "scale: where the quartiles lie, from a sample of the train split"
    shell:
        "brainlm scale-brackets --params {params.options:q} > {log:q} 2>&1"


rule scale_part:
    input:
        plan=study.pattern("shard_plan"),
        brackets=study.pattern("scaler_brackets"),
        atlas_table=study.pattern("atlas_table"),
    output:
        part=temp(study.pattern("scaler_part")),
    log:
        "logs/scale-part/{shard}.log",
    benchmark:
        "benchmarks/scale-part/{shard}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("scale-part"),
        code=study.code("scale-part"),
    message:
        "scale: values of {wildcards.shard} about the quartiles"
    shell:
        "brainlm scale-part {wildcards.shard} --params {params.options:q} > {log:q} 2>&1"


rule fit_scaler:
    input:
        study.fitted(),
        plans=study.each_shard("shard_plan", study.fit_shards),
        parts=study.scaler_parts(),
        atlas_table=study.pattern("atlas_table"),
    output:
        scaler=study.pattern("scaler"),
    log:
        "logs/scale.log",
    benchmark:
        "benchmarks/scale.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("scale"),
        code=study.code("scale"),
    message:
        "scale: median and IQR of each parcel over the train split"
    shell:
        "brainlm scale --params {params.options:q} > {log:q} 2>&1"


rule write_shard:
    input:
        plan=study.pattern("shard_plan"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
    output:
        shard=study.pattern("shard"),
        part=study.pattern("shard_part"),
    log:
        "logs/write-shard/{shard}.log",
    benchmark:
        "benchmarks/write-shard/{shard}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("write-shard"),
        code=study.code("write-shard"),
    message:
        "shard {wildcards.shard}"
    shell:
        "brainlm write-shard {wildcards.shard} --params {params.options:q} > {log:q} 2>&1"


rule index_shards:
    input:
        cohort=study.pattern("cohort"),
        exclusions=study.pattern("exclusions"),
        scaler=study.pattern("scaler"),
        atlas_table=study.pattern("atlas_table"),
        shards=study.each_shard("shard"),
        parts=study.each_shard("shard_part"),
    output:
        index=study.pattern("shards_index"),
    log:
        "logs/index-shards.log",
    benchmark:
        "benchmarks/index-shards.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        options=study.options("index-shards"),
        code=study.code("index-shards"),
    message:
        "index of the shards"
    shell:
        "brainlm index-shards --params {params.options:q} > {log:q} 2>&1"
