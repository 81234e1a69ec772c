module warmnode.dev/benchmarks/load

go 1.22
