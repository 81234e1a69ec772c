"""docs/openapi.json, made from the code: ``python -m scripts.tools.api_document`` writes it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from extender.web.openapi import document

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    COMMITTED.write_text(json.dumps(document(), indent=2) + "\n", encoding="utf-8")
