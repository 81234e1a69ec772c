"""Warmnode keeps a worker pool's oldest nodes full and its newest nodes empty. This package is `warmnode`.

Where to look: why a worker is evicted or stays, `policy.judging` (the reasons, `model.SkipReason`); a node's score,
`policy.scoring`; what a scheduler sends, `web.wire`; a setting's default, `policy.defaults`; how ledgers are merged,
`policy.ledger_merge`; what doctor checks, `inspect.doctor.diagnose`.

Folders, from the top: `cli`; `app`, which puts processes together; `inspect` and `simulate`, for people; `loops` and
`web`, which act; `cluster`, what is known; `kube`, `sources` and `settings`, the outside; `policy`, which decides.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("warmnode")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
