# One recording from raw data to parcels, each stage a job.


if study.config.engine == "native":

    include: "preprocess.smk"


if study.config.engine != "native" and study.kind == "volume":

    include: "adopt.smk"


if study.kind == "volume":

    include: "denoise.smk"
    include: "parcellate.smk"

else:

    include: "adopt_parcels.smk"


if study.config.resample.output == "parcels" and study.kind == "volume":
    if study.config.engine == "native":

        include: "straight.smk"

    else:

        include: "adopt_straight.smk"
