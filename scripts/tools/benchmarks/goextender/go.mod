module warmnode.dev/benchmarks/goextender

go 1.22
