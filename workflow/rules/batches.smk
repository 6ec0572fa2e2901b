# Many recordings from raw data to parcels in one job, for jobs.recordings_per_job above 1. The job
# runs workflow/Batch.smk, whose rules are those that make each stage of each recording a job
# otherwise: what is done already is not done again.


rule process_batch:
    input:
        study.batch_manifests,
        sources=study.batch_sources,
        review=study.batch_reviews,
        atlas=study.atlas_files(),
    output:
        list=study.pattern("batch"),
        figures=study.pattern("qc_batch"),
    log:
        "logs/run-batch/{batch}.log",
    benchmark:
        "benchmarks/run-batch/{batch}.tsv"
    conda:
        "../../environment.yml"
    container:
        study.image
    threads: study.config.jobs.cores_per_job
    resources:
        mem_mb=lambda wildcards, attempt: study.batch_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: study.batch_minutes(wildcards) * attempt,
    params:
        config=study.batch_config,
        content=study.batch_content,
        recordings=study.batch,
    message:
        "recordings of batch {wildcards.batch}"
    shell:
        "brainlm run-batch {params.recordings} --batch {wildcards.batch} --threads {threads} --mem-mb {resources.mem_mb}"
        " --config {params.config:q} > {log:q} 2>&1"
