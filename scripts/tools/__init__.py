"""What the scripts run: a real control plane, the demo, the benchmarks, the experiment. Not part of the product."""
