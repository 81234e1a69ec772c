"""The trial that docs/simulate.md and docs/cache-keys.md quote: run by scripts/trial."""
