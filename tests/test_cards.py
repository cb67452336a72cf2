"""The headers that model hubs and hosted spaces read, and numbers that stand twice."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import ROOT, own_files

CARD, SPACE = ROOT / "checkpoints" / "MODEL_CARD.md", ROOT / "space" / "README.md"


def header(path: Path) -> dict:
    _, text, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(text)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_the_model_card_says_what_benchmarks_say():
    assert {"license", "tags", "pipeline_tag", "library_name"} <= header(CARD).keys()
    rows = [cells(line) for line in CARD.read_text().splitlines() if "±" in line and line.startswith("|")]
    measured = [cells(line) for line in (ROOT / "BENCHMARKS.md").read_text().splitlines() if line.startswith("|")]
    assert len(rows) == 8
    for name, *values in rows:
        first, second = [row[1] for row in measured if row[0] == name and "±" in row[1]][:2]
        assert [first, second] == values, name
    named = re.findall(r"`(\w+\.safetensors)`", CARD.read_text())
    assert named and all((CARD.parent / name).is_file() for name in named)


def test_a_space_filled_as_its_readme_says_starts_the_page(tmp_path):
    about, space = header(SPACE), tmp_path / "space"
    space.mkdir()
    assert about["sdk"] == "gradio" and str(about["sdk_version"]).startswith("6.")
    (commands,) = re.findall(r"```bash\n(.*?)```", SPACE.read_text(), re.S)
    commands = commands.replace("../my-space", str(space))
    # What lies here now, as the commit of a repository elsewhere: the last commit may be older, or there may be none.
    here = {**os.environ, "GIT_DIR": str(tmp_path / "git"), "GIT_WORK_TREE": str(ROOT)}
    files = b"\0".join(bytes(path) for path in own_files())
    for words in (
        "init -q",
        "add -f --pathspec-from-file=- --pathspec-file-nul",
        "-c user.name=x -c user.email=x@x -c commit.gpgsign=false commit -qm now",
    ):
        subprocess.run(["git", *words.split()], cwd=ROOT, env=here, input=files, check=True)
    subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, env=here, check=True)
    assert header(space / "README.md") == about and not (space / "tests").exists()
    assert "torch>=" in (space / "requirements.txt").read_text()
    told = subprocess.run(
        [sys.executable, about["app_file"], "--help"], cwd=space, check=True, capture_output=True, text=True
    )
    assert "--longest" in told.stdout
