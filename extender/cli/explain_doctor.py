"""Commands that say why: explain, for one thing, and doctor, for the whole."""

from __future__ import annotations

import argparse
import asyncio

from extender.cli.flags import cluster_flags, cluster_options, path
from extender.cli.look_source import check_place, look, looks_once, snapshot_flag
from extender.cli.outcome import CLEAN, FAILURE, BadUsage, columns, fail, show, show_page
from extender.cli.parser import CommandParser, Commands, command, output_flag
from extender.inspect import commands
from extender.inspect.doctor.doctor_text import render_json, render_page
from extender.inspect.doctor.findings import Verdict
from extender.inspect.doctor.scheduler_config import SchedulerConfig, SchedulerConfigError, parse_scheduler_configs
from extender.inspect.explain import NotThere, PodExplanation, PoolExplanation, Subject, explain
from extender.inspect.explain_json import encode_explanation, encode_history
from extender.inspect.explain_text import render_explanation, render_history
from extender.inspect.plan import Plan
from extender.inspect.reading import read_source, source_name
from extender.inspect.recall import History
from extender.inspect.survey.to_evidence import DoctorOptions
from extender.inspect.text import printable
from extender.model import PlacementMode
from extender.settings import read_configuration

_DOCTOR = """\
Checks the installation and the cluster around it: is the scheduler calling us, and does its configuration let the
answers count; do workers say when they are idle; do others work against us; what does Karpenter do with it all. Each
check has a verdict (ok, warning, problem, unknown) and a remedy. Reads the cluster once and writes nothing; what it may
not read it names. Exit code 1 when there is a problem. Examples:

  warmnode doctor
  warmnode doctor --scheduler-config /etc/kubernetes/scheduler.yaml
  kubectl get nodes,pods,configmaps,leases,poddisruptionbudgets -A -o json |
    warmnode doctor --snapshot -
"""


_EXPLAIN = """\
Says why a pod, a node or a pool is where it is: why a worker is or is not idle, claimable, evicted; what its deletion
cost means; who would be evicted before it; why a node has its rank. Reads the cluster once, or a snapshot; writes
nothing. Of pods and nodes it also tells what was decided of late, as far as warmnode's own pods remember: it reads that
by port-forward, with your rights. Examples:

  warmnode explain pod analytics/duckdb-7
  warmnode explain node ip-10-0-41-17.ec2.internal
  kubectl get nodes,pods -A -o json | warmnode explain pool duckdb --snapshot -
"""


def _explain_flags(parser: CommandParser) -> None:
    command(parser, _EXPLAIN, looks_once(_explain))
    parser.add_argument("subject", choices=[str(subject) for subject in Subject], help="what NAME is")
    parser.add_argument("name", metavar="NAME", help="its name; of a pod NAMESPACE/NAME where several have that name")
    cluster_flags(parser)
    snapshot_flag(parser)
    output_flag(parser, "text", "json")


def _doctor_flags(parser: CommandParser) -> None:
    command(parser, _DOCTOR, looks_once(_doctor))
    cluster_flags(parser)
    parser.add_argument(
        "--scheduler-config",
        metavar="FILE",
        help="the KubeSchedulerConfiguration, or a ConfigMap that holds it; - is standard input; default: look for a "
        "ConfigMap in warmnode's namespace",
    )
    snapshot_flag(parser)
    output_flag(parser, "text", "json")


COMMANDS: Commands = {"explain": _explain_flags, "doctor": _doctor_flags}


def _explain(options: argparse.Namespace) -> int:
    subject = Subject(options.subject)
    seen = look(options, home=options.name.rpartition("/")[0] if subject is Subject.POD else None)
    try:
        explanation = explain(seen, subject, options.name)
    except NotThere as error:
        return _explain_the_past(options, str(error), seen.plan)
    name = options.name
    if isinstance(explanation, PodExplanation):
        name = f"{explanation.pod.namespace}/{explanation.pod.name}"
    is_placed = isinstance(explanation, PoolExplanation) and explanation.settings.placement is PlacementMode.ACTIVE
    history = None if is_placed else _recall(options, name)
    if options.output == "json":
        return show(encode_explanation(explanation, seen.plan, history))
    return show_page(render_explanation(explanation, seen.plan, history))


def _explain_the_past(options: argparse.Namespace, not_there: str, plan: Plan) -> int:
    """Tell what is remembered of what is gone; where that is nothing, only that it is not there."""
    history = _recall(options, options.name)
    if history is None or not history.decisions:
        return fail(printable(not_there))
    render = encode_history if options.output == "json" else render_history
    return show(render(not_there, plan, history))


def _recall(options: argparse.Namespace, name: str) -> History | None:
    """Ask the replicas, None of a snapshot: they say nothing of it."""
    if options.snapshot is not None:
        return None
    return asyncio.run(commands.recall_live(cluster_options(options), Subject(options.subject), name))


def _doctor(options: argparse.Namespace) -> int:
    check_place(options)
    asked = DoctorOptions(
        namespace=options.namespace,
        configuration=read_configuration(path(options.config)) if options.config else None,
        configuration_source=options.config,
        scheduler_configs=_scheduler_configs(options),
    )
    if options.snapshot is not None:
        diagnosis = commands.diagnose_snapshot(options.snapshot, asked)
    else:
        diagnosis = asyncio.run(commands.diagnose_live(cluster_options(options), asked))
    if options.output == "json":
        shown = show(render_json(diagnosis))
    else:
        shown = show_page(render_page(diagnosis, width=columns()))
    return FAILURE if shown != CLEAN or diagnosis.verdict is Verdict.PROBLEM else CLEAN


def _scheduler_configs(options: argparse.Namespace) -> tuple[SchedulerConfig, ...] | None:
    """Read the file of --scheduler-config. Raises `SchedulerConfigError`, or `BadUsage` for two standard inputs."""
    source = options.scheduler_config
    if not source:
        return None
    if source == options.snapshot == "-":
        raise BadUsage("--scheduler-config and --snapshot cannot both be standard input: give one as a file")
    content, name = read_source(source, SchedulerConfigError), source_name(source)
    try:
        return tuple(parse_scheduler_configs(content.decode(), source=name))
    except UnicodeDecodeError as error:
        raise SchedulerConfigError(name, "it is not UTF-8") from error
