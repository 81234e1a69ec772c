"""JSON Schema of the configuration file, for editors and for whoever writes the file by program.

Owns what differs from the models: a pool says only what differs from ``poolDefaults``, and null is no section.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from extender.policy.durations import format_duration
from extender.settings.models import Configuration
from extender.settings.pool_defaults import PoolDefaults

SCHEMA_ID = "https://warmnode.dev/schemas/v1alpha1/configuration.schema.json"


class _WithoutFieldTitles(GenerateJsonSchema):
    """Titles made from field names only repeat them."""

    schema_dialect = "https://json-schema.org/draft/2020-12/schema"

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        """A section that is left out is an empty one: its keys have their own defaults."""
        if is_dataclass(dft) or isinstance(dft, BaseModel):
            return {}
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def configuration_schema() -> dict[str, Any]:
    """The schema (2020-12). What it refuses, `load_configuration` refuses; it cannot see how values fit together."""
    schema = Configuration.model_json_schema(by_alias=True, schema_generator=_WithoutFieldTitles)
    for section in (schema, *schema["$defs"].values()):
        for field in section.get("properties", {}).values():
            if "description" in field:
                field["description"] = " ".join(field["description"].split())
    in_pool = schema["$defs"]["PoolSettings"]["properties"]
    for field in PoolDefaults.model_fields.values():
        # In a pool the default is what poolDefaults says, not what the program does.
        del in_pool[str(field.alias)]["default"]
    in_pool["dryRun"]["default"] = None
    sources = schema["$defs"]["IdleSource"]["properties"]
    for name, source in sources.items():
        chosen = next(part for part in source["anyOf"] if part != {"type": "null"})
        sources[name] = {**chosen, "description": source["description"]}
    return {"$schema": _WithoutFieldTitles.schema_dialect, "$id": SCHEMA_ID, **schema}
