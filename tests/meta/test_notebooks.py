"""The notebooks run from top to bottom, and show what they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from daedalus.cli.main import main

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
#: Keeping a notebook small keeps its history readable.
_MOST_BYTES = 64_000

# Jupyter's own stack is not free of warnings.
pytestmark = pytest.mark.filterwarnings("ignore")


def shown(cell: Any) -> str:
    """What a cell prints, and its value, as text."""
    texts = [
        output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
        for output in cell.get("outputs", ())
        if output["output_type"] != "stream" or output["name"] == "stdout"
    ]
    return "\n".join(text.rstrip() for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_prints(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    # The kernel is this interpreter, whatever kernels this machine knows.
    kernels = tmp_path / "share" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernels.joinpath("kernel.json").write_text(
        f'{{"argv": {arguments!r}, "display_name": "p", "language": "python"}}'.replace("'", '"')
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "shop"]) == 0
    notebook = nbformat.read(path, as_version=4)
    wanted = [shown(cell) for cell in notebook.cells]
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "shop")}}
    )
    client.execute()
    assert [shown(cell) for cell in notebook.cells] == wanted
    assert any(wanted)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < _MOST_BYTES
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("metadata"), "run times and editor state stay out"
        assert cell.get("execution_count") is None
        assert not any(output["output_type"] == "error" for output in cell.get("outputs", ()))
