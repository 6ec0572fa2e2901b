# The atlas: on the study's grid, or its table alone where runs came as parcels.


if study.kind == "volume":

    rule prepare_atlas:
        output:
            atlas_image=study.pattern("atlas_image"),
            atlas_table=study.pattern("atlas_table"),
        log:
            "logs/prepare-atlas.log",
        benchmark:
            "benchmarks/prepare-atlas.tsv"
        conda:
            "../../environment.yml"
        container:
            study.image
        threads: 1
        resources:
            mem_mb=lambda wildcards, attempt: 2000 * attempt,
            runtime=lambda wildcards, attempt: 10 * attempt,
        params:
            options=study.options("prepare-atlas"),
            code=study.code("prepare-atlas"),
            content=study.atlas_content(),
        message:
            "prepare-atlas"
        shell:
            "brainlm prepare-atlas --params {params.options:q} > {log:q} 2>&1"

else:

    rule prepare_atlas_table:
        output:
            atlas_table=study.pattern("atlas_table"),
        log:
            "logs/prepare-atlas.log",
        benchmark:
            "benchmarks/prepare-atlas.tsv"
        conda:
            "../../environment.yml"
        container:
            study.image
        threads: 1
        resources:
            mem_mb=lambda wildcards, attempt: 1000 * attempt,
            runtime=lambda wildcards, attempt: 10 * attempt,
        params:
            options=study.options("prepare-atlas"),
            code=study.code("prepare-atlas"),
            content=study.atlas_content(),
        message:
            "prepare-atlas, its table"
        shell:
            "brainlm prepare-atlas --table-only --params {params.options:q} > {log:q} 2>&1"
