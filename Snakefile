# From raw BIDS fMRI to a trained, evaluated BrainLM.
#
#   snakemake --profile slurm                        everything, on a cluster
#   snakemake --profile config/profiles/local        everything, on this machine
#   snakemake --profile ... parcellations            up to one stage: parcellations, qc, shards,
#                                                    pretrain, finetune, embed, probe, scaling,
#                                                    evaluate, report
#
# Run it in a study folder made by `brainlm onboard` (or add --directory STUDY).
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/start.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/atlas.smk"


if study.config.engine == "fmriprep":

    include: "workflow/rules/fmriprep.smk"


if study.batched:

    include: "workflow/rules/batches.smk"

else:

    include: "workflow/rules/recordings.smk"
    include: "workflow/rules/qc.smk"


include: "workflow/rules/quality.smk"
include: "workflow/rules/shards.smk"


if study.config.released.source:

    include: "workflow/rules/released.smk"

else:

    include: "workflow/rules/pretrain.smk"


include: "workflow/rules/finetune.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/probe.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/forecasts.smk"
include: "workflow/rules/scaling.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/latent.smk"
include: "workflow/rules/perturbation.smk"
include: "workflow/rules/evaluation_page.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    parcellations,
    qc,
    shards,
    pretrain,
    finetune,
    embed,
    probe,
    scaling,
    evaluate,
    report,
    audit_recordings,


rule all:
    default_target: True
    input:
        report=study.pattern("report"),
        quality=study.pattern("quality_page"),
        reproducibility=study.pattern("reproducibility"),
        audit=AUDIT,
        # Snakemake makes a deleted file anew only when it is asked for by name.
        kept=[
            *study.parcellations,
            study.pattern("cohort"),
            study.pattern("scaler"),
            *study.each_shard("shard"),
            study.pattern("shards_index"),
            study.pattern("model"),
            *study.finetuned,
            *EVALUATIONS,
        ],


rule parcellations:
    input:
        study.parcellations,


rule qc:
    input:
        study.pattern("quality_page"),


rule shards:
    input:
        study.pattern("shards_index"),
        AUDIT,


rule pretrain:
    input:
        study.pattern("model"),
        AUDIT,


rule finetune:
    input:
        study.finetuned,
        AUDIT,


rule embed:
    input:
        study.pattern("embeddings"),
        AUDIT,


rule probe:
    input:
        study.each_target("probe"),
        AUDIT,


rule scaling:
    input:
        study.pattern("scaling"),
        AUDIT,


rule evaluate:
    input:
        EVALUATIONS,
        AUDIT,


rule report:
    input:
        study.pattern("report"),
        study.pattern("quality_page"),
        study.pattern("reproducibility"),
        AUDIT,
