"""Following a file that changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from extender.settings import Configuration, ConfigurationFile, SettingsError

HEAD = "apiVersion: warmnode.dev/v1alpha1\nkind: Configuration\n"


def refused(file: ConfigurationFile) -> str:
    """What is wrong with the version that is there now."""
    with pytest.raises(SettingsError) as error:
        file.poll()
    return str(error.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD, encoding="utf-8")
    return path


def test_first_version_must_be_good(path: Path) -> None:
    """There is nothing to go on with."""
    path.write_text("kind: x", encoding="utf-8")
    with pytest.raises(SettingsError):
        ConfigurationFile(path)


def test_no_file_is_the_defaults_for_ever() -> None:
    """Nothing can change."""
    file = ConfigurationFile(None)
    assert (file.poll(), file.configuration) == (None, Configuration.default())


def test_file_that_stays_is_unchanged(path: Path) -> None:
    """Also when it was only touched."""
    file = ConfigurationFile(path)
    assert file.poll() is None
    path.write_text(HEAD, encoding="utf-8")
    assert file.poll() is None


def test_new_version_is_in_force_after_one_poll(path: Path) -> None:
    """It is reported once, and is the configuration from then on."""
    file = ConfigurationFile(path)
    path.write_text(HEAD + "age: created\n", encoding="utf-8")
    assert file.poll() is file.configuration
    assert file.configuration.age == "created"
    assert file.poll() is None


def test_version_of_equal_size_is_noticed(path: Path) -> None:
    """The size alone says nothing."""
    path.write_text(HEAD + "poolDefaults: {reap: {floor: 1}}", encoding="utf-8")
    file = ConfigurationFile(path)
    other = path.with_name("other")
    other.write_text(HEAD + "poolDefaults: {reap: {floor: 2}}", encoding="utf-8")
    other.replace(path)
    assert file.poll() is not None
    assert file.configuration.pool_defaults.reap.floor == 2


def test_bad_version_is_refused_once_and_the_old_stays(path: Path) -> None:
    """Each bad version is told once; what was in force stays."""
    file = ConfigurationFile(path)
    path.write_text(HEAD + "age: new", encoding="utf-8")
    assert refused(file).startswith(f"{path}:3: age: must be")
    assert file.poll() is None
    path.touch()
    assert file.poll() is None
    assert file.configuration == Configuration.default()
    path.write_text(HEAD + "age: old", encoding="utf-8")
    assert refused(file)


def test_mistake_that_is_taken_back_is_accepted(path: Path) -> None:
    """So that whoever shows the refusal can stop showing it."""
    file = ConfigurationFile(path)
    path.write_text("kind: x", encoding="utf-8")
    assert refused(file)
    path.write_text(HEAD, encoding="utf-8")
    assert file.poll() is file.configuration
    assert file.configuration.age == "firstSeen"


def test_missing_file_is_refused_once_until_it_is_back(path: Path) -> None:
    """A file that is gone is like a bad version; one that is back is like a new one."""
    file = ConfigurationFile(path)
    path.unlink()
    assert "does not exist" in refused(file)
    assert file.poll() is None
    path.write_text(HEAD, encoding="utf-8")
    assert file.poll() is file.configuration
    assert file.configuration.age == "firstSeen"


def test_config_map_update_is_noticed_behind_its_links(tmp_path: Path) -> None:
    """Kubernetes turns the link ..data to a new directory; the link that is read never changes."""
    for name, text in (("..1", HEAD), ("..2", HEAD + "age: created\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text, encoding="utf-8")
    data, link = tmp_path / "..data", tmp_path / "config.yaml"
    data.symlink_to("..1")
    link.symlink_to("..data/config.yaml")
    file = ConfigurationFile(link)
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(data)
    assert file.poll() is file.configuration
    assert file.configuration.age == "created"
