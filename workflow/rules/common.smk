# What all rules share. The lookups themselves live in brainlm/dag.py, where they are tested.
import gc
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from brainlm.bids.onboarded import check_onboarded
from brainlm.config.files import read_content
from brainlm.dag import RECORDING_REGEX, Dag, prepare_environment
from brainlm.dag_containers import enter_containers
from brainlm.errors import BrainLMError
from brainlm.shards.plan import SHARD_REGEX

# A cohort of 10,000 makes millions of long-lived objects; looking for garbage among them at
# Snakemake's usual pace takes a third of the time of a dry run.
gc.set_threshold(500_000, 20, 100)

prepare_environment()

try:
    if workflow.is_main_process:
        # Snakemake itself takes the last of two equal keys.
        for file in workflow.configfiles:
            if Path(file).suffix in (".yaml", ".yml"):
                read_content(file)
    study = Dag(config, Path.cwd())
    if workflow.is_main_process and study.only_batch is None:
        check_onboarded(study.config, study.study)
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        enter_containers(study)
except BrainLMError as error:
    raise WorkflowError(str(error)) from None

AUDIT = "qc/audit.ok"
EVALUATIONS = study.evaluation_ends
if study.has_truth:
    EVALUATIONS.append(study.pattern("phantom_check"))


wildcard_constraints:
    folder=r"sub-[^/]+(?:/ses-[^/]+)?",
    anat_folder=r"sub-[^/]+(?:/ses-[^/]+)?",
    recording=RECORDING_REGEX,
    anat=RECORDING_REGEX,
    target=r"[A-Za-z0-9_]+",
    method=r"[a-z-]+",
    point=r"[A-Za-z0-9]+-[0-9.e-]+",
    batch=r"[0-9]+",
    shard=SHARD_REGEX,


def volatile(path):
    """Large intermediate files go once nobody needs them, unless the config keeps them."""
    return path if study.config.keep_intermediates else temp(path)
