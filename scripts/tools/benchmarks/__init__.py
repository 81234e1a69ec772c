"""The benchmarks behind docs/benchmarks.md. `scripts/bench` runs them; nothing here is part of the test suite."""
