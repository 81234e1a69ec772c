"""scripts/experiment: the same seeded work on real kube-scheduler and real Karpenter, under different rules.

`arms` and `workloads` say what is compared, `matrix` which runs there are, `batches` carries them out, `stage` sets one
up, `jobs` and `workers` act it out, `caches` says what a miss costs, `recorder` notes what the API server says,
`record` is what a run leaves behind, `measures` reads it, `goals` and `report` write docs/experiment.md. Pure are
`measures`, `goals`, `traffic`, `matrix` and `plots`.
"""
