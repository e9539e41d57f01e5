"""The distribution: its name, its licences, the contents of the sdist, its extras."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

from tests.support.documents import PAGES, ROOT

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
TEXTS = [*PAGES, *sorted((ROOT / "crawler").rglob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]


def lines_of(option: str, section: str = "metadata") -> list[str]:
    return SETUP[section][option].split("\n")[1:]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_names_the_other_distribution_called_crawler(path: Path) -> None:
    """On the index, `crawler` is another project's."""
    assert SETUP["metadata"]["name"] == "urlprober"
    assert not re.search(r"\binstall\s+(-\S+\s+)*['\"]?crawler\b|\bcrawler\[[a-z]", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_that_a_text_names_exist(path: Path) -> None:
    for extras in re.findall(r"urlprober\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
        assert set(extras.split(",")) <= SETUP["options.extras_require"].keys()


def test_all_licence_texts_are_in_the_wheel() -> None:
    texts = {"LICENSE", *(str(path.relative_to(ROOT)) for path in (ROOT / "crawler").rglob("*") if is_licence(path))}
    assert set(lines_of("license_files")) == texts


def is_licence(path: Path) -> bool:
    return path.name.startswith(("LICENSE", "NOTICE")) or ".LICENSE" in path.name


def test_the_sdist_has_each_folder_and_file_of_the_project() -> None:
    words = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split()
    automatic = {"README.md", "LICENSE", "setup.cfg", "pyproject.toml", "MANIFEST.in", "crawler", "PKG-INFO"}
    made = {"build", "dist", "__pycache__"}
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.suffix != ".egg-info"}
    assert names - automatic - made <= set(words)


def test_both_commands_run_the_same_program() -> None:
    commands = dict(line.split(" = ") for line in lines_of("console_scripts", "options.entry_points"))
    assert commands == dict.fromkeys(("crawler", "urlprober"), "crawler.cli.main:main")


def test_developers_packages_are_groups_and_no_extras() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert {"test", "check", "dist", "dev"} <= groups.keys()
    assert not groups.keys() & SETUP["options.extras_require"].keys()
