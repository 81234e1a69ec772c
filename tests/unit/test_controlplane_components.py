"""What is filled in around a component's own settings, and what the command line refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.tools.controlplane.__main__ import main
from scripts.tools.controlplane.cluster import Options
from scripts.tools.controlplane.components import STAGES, kwok_arguments, scheduler_config
from scripts.tools.controlplane.errors import MissingTool
from scripts.tools.controlplane.fixtures import skip_or_fail


def test_scheduler_config_fills_in_what_is_left_open() -> None:
    """Kind, kubeconfig, client limits and no leader election; nothing else."""
    config = scheduler_config({}, Path("/scheduler.kubeconfig"))
    assert config["kind"] == "KubeSchedulerConfiguration"
    assert config["clientConnection"]["kubeconfig"] == "/scheduler.kubeconfig"
    assert config["leaderElection"] == {"leaderElect": False}


def test_scheduler_config_keeps_what_is_given() -> None:
    """A test that sets its own client, leader election or profiles gets exactly these."""
    given = {
        "clientConnection": {"kubeconfig": "/mine", "qps": 1},
        "leaderElection": {"leaderElect": True},
        "profiles": [{"schedulerName": "warmnode"}],
    }
    config = scheduler_config(given, Path("/scheduler.kubeconfig"))
    assert config["clientConnection"]["kubeconfig"] == "/mine"
    assert config["clientConnection"]["qps"] == 1
    assert config["leaderElection"]["leaderElect"] is True
    assert config["profiles"] == given["profiles"]


def test_kwok_gets_every_stage_file() -> None:
    """A stage that is not on the command line does nothing, and KWOK does not say so."""
    assert len(list(STAGES.glob("*.yaml"))) == 5
    configs = {each for each in kwok_arguments(Path("/admin"), 1, ()) if each.startswith("--config=")}
    assert configs == {f"--config={stage}" for stage in STAGES.glob("*.yaml")}


def test_options_name_only_the_programs_they_need() -> None:
    """A control plane without a scheduler needs none; Karpenter is asked for by version."""
    assert Options(scheduler=False, controller_manager=False, kwok=False).binaries() == ["etcd", "kube-apiserver"]
    assert "karpenter-1.13.0" in Options(karpenter="1.13.0").binaries()


def test_a_machine_without_a_control_plane_skips_with_the_remedy() -> None:
    """The reason of the skip is what there is to install."""
    with pytest.raises(pytest.skip.Exception, match="install Go"):
        skip_or_fail(MissingTool("install Go"), {})


def test_a_required_control_plane_fails_instead_of_skipping() -> None:
    """Where WARMNODE_REQUIRE_CONTROL_PLANE=1, a skip would hide that nothing was tested."""
    with pytest.raises(pytest.fail.Exception, match="install Go"):
        skip_or_fail(MissingTool("install Go"), {"WARMNODE_REQUIRE_CONTROL_PLANE": "1"})


@pytest.mark.parametrize(
    "arguments",
    [[], ["start"], ["up", "--karpenter", "1.0.0"], ["up", "--name", "../x"], ["up", "--name", "a", "--dir", "b"]],
)
def test_bad_usage_ends_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is told from failure by its exit code, and names what is wrong."""
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_env_without_a_control_plane_names_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing runs: code 1, one line, and the command that starts it."""
    assert main(["env", "--dir", str(tmp_path / "none")]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "control-plane up --dir" in output.err


def test_down_without_a_control_plane_is_done_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`down` may be called twice, and never touches a folder that is not a control plane's."""
    (tmp_path / "thesis.tex").write_text("...")
    assert main(["down", "--dir", str(tmp_path)]) == 0
    assert "nothing runs" in capsys.readouterr().out
    assert (tmp_path / "thesis.tex").exists()
