# fMRIPrep in a container, one job per subject or session. Included where engine is fmriprep.
from brainlm.dag_fmriprep import JOB_REGEX, FmriprepJobs

try:
    fmriprep_jobs = FmriprepJobs(study, Path.cwd())
except BrainLMError as error:
    raise WorkflowError(str(error)) from None


rule run_fmriprep:
    input:
        raw=fmriprep_jobs.raw,
    output:
        manifest=fmriprep_jobs.pattern,
    log:
        "logs/fmriprep/{job}.log",
    benchmark:
        "benchmarks/fmriprep/{job}.tsv"
    wildcard_constraints:
        job=JOB_REGEX,
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: fmriprep_jobs.mem_mb(wildcards) * attempt,
        runtime=lambda wildcards, attempt: fmriprep_jobs.runtime(wildcards) * attempt,
    params:
        options=study.options("fmriprep"),
        code=study.code("fmriprep"),
        content=fmriprep_jobs.content,
    message:
        "fmriprep {wildcards.job}"
    shell:
        "brainlm fmriprep {wildcards.job} --threads {threads} --mem-gb {resources.mem_mb}e-3"
        " --params {params.options:q} --on-data-error record > {log:q} 2>&1"
