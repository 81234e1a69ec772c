"""The command line of scripts/control-plane: build, up, down, status, env.

Owns arguments, exit codes (0 done, 1 failure, 2 bad usage) and what people read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.tools.controlplane import instances
from scripts.tools.controlplane.binaries import KARPENTER_MODULES, OLDER_SCHEDULERS
from scripts.tools.controlplane.building import find_or_build
from scripts.tools.controlplane.client import Json
from scripts.tools.controlplane.cluster import Options
from scripts.tools.controlplane.errors import ControlPlaneError

PROGRAM = "scripts/control-plane"
BASE_BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "supervise":
        return instances.supervise()
    try:
        match options.command:
            case "build":
                return _build(options)
            case "up":
                return _up(options)
            case "down":
                return _down(options)
            case "status":
                return _status(options)
            case _:
                return _env(options)
    except ControlPlaneError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; no process is left", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="A real Kubernetes control plane on this machine without containers."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="find or build the programs, which takes minutes the first time")
    up = commands.add_parser("up", help="start a control plane in the background")
    down = commands.add_parser("down", help="end a control plane and remove its folder")
    status = commands.add_parser("status", help="show what runs; exit code 1 where nothing does")
    env = commands.add_parser("env", help='print shell lines that point kubectl at it: eval "$(... env)"')
    commands.add_parser("supervise")  # what `up` starts; not for people, so without help
    build.add_argument("--karpenter", action="append", default=[], choices=list(KARPENTER_MODULES), metavar="VERSION")
    build.add_argument("--scheduler", action="append", default=[], choices=list(OLDER_SCHEDULERS), metavar="VERSION")
    for each in (up, down, status, env):
        where = each.add_mutually_exclusive_group()
        where.add_argument("--name", type=_name, help="which one, where several run (default: default)")
        where.add_argument("--dir", type=Path, help="its folder, instead of one by name under XDG_STATE_HOME")
        if each in (down, status):
            where.add_argument("--all", action="store_true", help="all that have a name")
    for each in (status, env):
        each.add_argument("--json", action="store_true", help="print JSON")
    up.add_argument("--no-scheduler", action="store_true")
    up.add_argument("--no-controller-manager", action="store_true")
    up.add_argument("--no-kwok", action="store_true")
    up.add_argument(
        "--karpenter", choices=list(KARPENTER_MODULES), metavar="VERSION", help=f"one of {', '.join(KARPENTER_MODULES)}"
    )
    for component in ("apiserver", "controller-manager"):
        up.add_argument(
            f"--{component}-flag",
            action="append",
            default=[],
            metavar="FLAG",
            help=f"a further flag for kube-{component}, such as --{component}-flag=--v=4; may be repeated",
        )
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: use lower-case letters, digits and dashes")
    return text


def _build(options: argparse.Namespace) -> int:
    further = [f"karpenter-{version}" for version in options.karpenter]
    further += [f"kube-scheduler-{version}" for version in options.scheduler]
    for name, path in find_or_build([*BASE_BINARIES, *dict.fromkeys(further)], os.environ, _note).items():
        print(f"{name:<24} {path}")
    return 0


def _up(options: argparse.Namespace) -> int:
    started = time.monotonic()
    wanted = Options(
        scheduler=not options.no_scheduler,
        controller_manager=not options.no_controller_manager,
        kwok=not options.no_kwok,
        karpenter=options.karpenter,
        apiserver_flags=tuple(options.apiserver_flag),
        controller_manager_flags=tuple(options.controller_manager_flag),
    )
    find_or_build([*wanted.binaries(), "kubectl"], os.environ, _note)
    directory = _directory(options)
    instances.bring_up(directory, wanted, _note)
    here = _select(options)
    print(f"The control plane is up after {time.monotonic() - started:.1f} s, in {directory}. Next:")
    print(f'  eval "$({PROGRAM} env{here})"')
    print("  kubectl get nodes,pods --all-namespaces")
    print(f"  {PROGRAM} down{here}")
    return 0


def _down(options: argparse.Namespace) -> int:
    for directory in _directories(options):
        if instances.take_down(directory):
            print(f"ended, and removed {directory}")
        else:
            print(f"nothing runs in {directory}")
    return 0


def _status(options: argparse.Namespace) -> int:
    directories = _directories(options)
    found = {str(directory): instances.read_status(directory) for directory in directories}
    running = [state for state in found.values() if state is not None]
    if options.json:
        print(json.dumps(running if options.all else (running[0] if running else None), indent=2))
    else:
        for directory, state in found.items():
            _print_status(directory, state)
        if not found:
            print("nothing runs")
    return 0 if running else 1


def _print_status(directory: str, state: Json | None) -> None:
    if state is None:
        print(f"nothing runs in {directory}")
        return
    print(f"{directory}: {state['server']}")
    for each in state["components"]:
        port = each["port"] or ""
        print(f"  {each['name']:<24} {each['state']:<8} process {each['pid']:<8} port {port:<6} {each['log']}")


def _env(options: argparse.Namespace) -> int:
    directory = _directory(options)
    state = instances.read_status(directory)
    if state is None:
        raise ControlPlaneError(f"nothing runs in {directory}: start it with {PROGRAM} up{_select(options)}")
    kubectl = find_or_build(["kubectl"], os.environ, _note)["kubectl"].parent
    if options.json:
        print(json.dumps({"KUBECONFIG": state["kubeconfig"], "PATH": f"{kubectl}:{os.environ.get('PATH', '')}"}))
    else:
        print(f"export KUBECONFIG={shlex.quote(state['kubeconfig'])}")
        print(f'export PATH={shlex.quote(str(kubectl))}:"$PATH"')
    return 0


def _directory(options: argparse.Namespace) -> Path:
    if options.dir is not None:
        return Path(options.dir).absolute()
    return instances.state_directory(os.environ) / (options.name or "default")


def _directories(options: argparse.Namespace) -> list[Path]:
    if not options.all:
        return [_directory(options)]
    base = instances.state_directory(os.environ)
    return sorted(each for each in base.iterdir() if each.is_dir()) if base.is_dir() else []


def _select(options: argparse.Namespace) -> str:
    if options.dir is not None:
        return f" --dir {shlex.quote(str(options.dir))}"
    return f" --name {options.name}" if options.name else ""


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: clean up, then end
    sys.exit(main())
