"""Ports for control planes: those that start at once never get the same."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tools.controlplane.binaries import ROOT
from scripts.tools.controlplane.errors import ControlPlaneError
from scripts.tools.controlplane.processes import PORTS, free_ports

ASK = "import sys, pathlib; from scripts.tools.controlplane.processes import free_ports\n"
ASK += "for _ in range(20): print(*free_ports(3, pathlib.Path(sys.argv[1])))"


def test_programs_that_ask_at_once_get_different_ports(tmp_path: Path) -> None:
    """Although none of them listens yet."""
    asking = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", ASK, str(tmp_path / "last")],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT)},
        )
        for _ in range(4)
    ]
    given = [int(port) for each in asking for port in each.communicate(timeout=60)[0].split()]
    assert len(set(given)) == len(given) == 4 * 20 * 3


def test_ports_are_none_that_kernels_use_for_connections(tmp_path: Path) -> None:
    """A connection out of this machine could take one between the choice and the program that listens.

    net.ipv4.ip_local_port_range begins at 32,768 where nobody changed it, Kubernetes' node ports at 30,000.
    """
    assert all(PORTS.start <= port < 30_000 for port in free_ports(50, tmp_path / "last"))


def test_port_that_somebody_listens_on_is_passed_over(tmp_path: Path) -> None:
    """And the range begins anew at its end."""
    last = tmp_path / "last"
    last.write_text(str(PORTS.stop - 2))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", PORTS.stop - 1))
        (port,) = free_ports(1, last)
    assert PORTS.start <= port < PORTS.stop - 1
    assert int(last.read_text()) == port


@pytest.mark.parametrize("text", ["", "not a number", "99999999"])
def test_counter_that_makes_no_sense_is_begun_anew(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file."""
    (tmp_path / "last").write_text(text)
    assert free_ports(1, tmp_path / "last")[0] in PORTS


def test_more_ports_than_there_are_is_an_error(tmp_path: Path) -> None:
    """In place of an endless search."""
    with pytest.raises(ControlPlaneError, match="are free"):
        free_ports(len(PORTS) + 1, tmp_path / "last")
