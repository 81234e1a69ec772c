"""The configuration file: its models, how it is read and checked, its JSON Schema, and how changes are followed.

Owns everything between a YAML file and frozen values. No I/O but reading that file; no asyncio, no Kubernetes.
"""

from extender.policy.durations import format_duration, parse_duration
from extender.settings.idle_section import AnnotationSource
from extender.settings.load import load_configuration, read_configuration
from extender.settings.mistakes import Mistake, SettingsError
from extender.settings.models import Configuration
from extender.settings.pool_sections import PoolSettings, SelectorSection, to_cache_key_rule, to_model_pool
from extender.settings.reload import ConfigurationFile
from extender.settings.schema import configuration_schema

__all__ = [
    "AnnotationSource",
    "Configuration",
    "ConfigurationFile",
    "Mistake",
    "PoolSettings",
    "SelectorSection",
    "SettingsError",
    "configuration_schema",
    "format_duration",
    "load_configuration",
    "parse_duration",
    "read_configuration",
    "to_cache_key_rule",
    "to_model_pool",
]
