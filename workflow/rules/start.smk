# Before anything is submitted: clean up behind a killed run, and look whether the jobs could run.
# Jobs parse this file too; what follows is for the run that a user has started.
if workflow.is_main_process:
    from brainlm.cluster import preflight, runs

    this_run = runs.guard(workflow)

    onstart:
        with runs.told_by_snakemake():
            preflight.check(workflow)
            runs.submitting(this_run, workflow)
