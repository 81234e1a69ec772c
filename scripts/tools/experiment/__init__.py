"""scripts/experiment: the same seeded work on real kube-scheduler and real Karpenter, under different rules.

`arms` and `workloads` say what is compared, `matrix` which runs there are, `stage` sets one up, `driver`, `jobs` and
`workers` act it out, `recorder` notes what the API server says, `record` is what a run leaves behind, `measures` reads
it, `report` writes docs/experiment.md. `measures`, `traffic`, `matrix` and `plots` are pure.
"""
