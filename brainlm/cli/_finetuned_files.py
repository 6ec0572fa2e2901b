"""What fine-tuning leaves: a model's folder like any other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ._console import say

if TYPE_CHECKING:
    import pandas as pd

    from ..model.checkpoint import LoadedModel
    from ..shards.reader import ShardReader
    from ..train.repeats import Repeated
    from ..train.settings import FinetuneSettings
    from ..train.tuning import Circumstances
    from ._stage import StageRun
    from .finetune import Lesson


def write_model(
    run: StageRun,
    reader: ShardReader,
    pretrained: LoadedModel,
    settings: FinetuneSettings,
    done: Repeated[Any],
    around: Circumstances,
    machine: dict[str, Any],
    lesson: Lesson,
    scores: dict[str, float],
) -> None:
    """Weights, config, scaler, parcels, model card and log.

    `scores`: beside what is learned by, on the validation split.
    """
    from ..files import write_text
    from ..model.card import model_card
    from ..model.checkpoint import ModelCard, save_surroundings, save_weights
    from ..shards.fingerprint import split_sha256
    from ..train.repeats import all_rows

    path, summary = run.path(lesson.kind), done.summary()
    of_others = None if lesson.kind == "untrained_forecaster" else pretrained.card.released
    card = lesson.head.to_dict() if lesson.head else None
    training = {key: value for key, value in vars(settings).items() if key != "targets"}
    readme = model_card(
        path.parent.name,
        pretrained.config,
        n_parameters=sum(parameter.numel() for parameter in done.model.parameters()),
        counts=lesson.counts,
        training={
            **training,
            "label": lesson.head.name if lesson.head else None,
            "seed": run.params["seed"],
        },
        results={key: value for key, value in summary.items() if value is not None} | scores,
        head=card,
        released=of_others,
    )
    path.unlink(missing_ok=True)  # no older weights beside the new config.json
    save_surroundings(
        path.parent,
        config=pretrained.config,
        card=ModelCard(pretrained.card.mask_ratio, split_sha256(reader.table), card, of_others),
        data_folder=reader.folder,
        readme=readme,
    )
    rows = all_rows(around, summary["repeats"])
    write_text(
        path.with_name("metrics.jsonl"),
        "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows),
    )
    about = {**machine, "Repeats": summary}
    about |= {"Head": card} if card else {}
    about |= {"ValidationScores": scores} if scores else {}
    if done.told[0] is not None:
        with run.output("repeats", about=machine) as temporary:
            _of_repeats(done).to_parquet(temporary, index=False)
    with run.output(lesson.kind, about=about) as temporary:
        save_weights(temporary, done.model)
    if summary["repeats"] > 1:
        say(
            f"validation loss over {summary['repeats']} repeats: {summary['val_loss_mean']:.4f} "
            f"(SD {summary['val_loss_sd']:.4f}); the best is kept"
        )
    say(f"{lesson.told}: {run.study.relative(path)}")


def _of_repeats(done: Repeated[Any]) -> pd.DataFrame:
    """What each repeat's head made of the test recordings: repeat, recording_id, output_0, ..."""
    import pandas as pd

    tables = []
    for number, (names, outputs) in enumerate(done.told, start=1):
        columns = outputs.reshape(len(names), -1).T
        made = {f"output_{place}": column for place, column in enumerate(columns)}
        tables.append(pd.DataFrame({"repeat": number, "recording_id": names, **made}))
    return pd.concat(tables, ignore_index=True)
