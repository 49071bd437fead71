"""The notebooks run from their first to their last cell, and are stored without outputs or functions of their own."""

import ast
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need the extra: pip install -e '.[notebooks]'")
nbclient = pytest.importorskip("nbclient", reason="the notebooks need the extra: pip install -e '.[notebooks]'")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """A client of one kernel for all notebooks, which imports torch once."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter client, which is not ours
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("PYTHONPATH", str(FOLDER.parent))
        client = nbclient.NotebookClient(nbformat.v4.new_notebook(), timeout=300, kernel_name="python3")
        with client.setup_kernel():
            yield client


@pytest.fixture
def run(kernel: Any, tmp_path: Path) -> Run:
    """Executes a notebook with no name defined before it. Raises if a cell does."""

    def run(name: str) -> Any:
        kernel.nb = _read(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kernel.execute_cell(nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path}"), 0, execution_count=1)
            for number, cell in enumerate(kernel.nb.cells):
                kernel.execute_cell(cell, number)
        return kernel.nb

    return run


def _last_value(notebook: Any) -> Any:
    outputs = [o for o in notebook.cells[-1].outputs if o.output_type == "execute_result"]
    return ast.literal_eval(outputs[0]["data"]["text/plain"]) if outputs else None


def test_there_are_four_notebooks() -> None:
    names = ["01_equilibrium", "02_train", "03_quantize_and_verify", "04_train_by_spikes"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_holds_no_outputs(path: Path) -> None:
    notebook = _read(path.stem)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_no_function(path: Path) -> None:
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    for cell in _read(path.stem).cells:
        if cell.cell_type == "code":
            found = [type(node).__name__ for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defining)]
            assert not found, f"{path.name}: {found} in\n{cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    """The small version of running it: names that have moved are noticed at once."""
    cells = (cell.source for cell in _read(path.stem).cells if cell.cell_type == "code")
    nodes = (node for source in cells for node in ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert imports
    exec(compile(ast.Module(imports, type_ignores=[]), path.name, "exec"), {})


@pytest.mark.slow
def test_deviation_from_the_equilibrium_falls_as_one_over_t(run: Run) -> None:
    slopes = _last_value(run("01_equilibrium"))
    assert list(slopes) == ["IF", "IF, threshold r/2", "LIF, leak 0.95", "IF, integers"]
    for name in ("IF", "IF, threshold r/2", "IF, integers"):
        assert -1.2 < slopes[name] < -0.8, name
    assert slopes["LIF, leak 0.95"] > -0.5  # a floor


def test_training_notebook_runs(run: Run, tmp_path: Path) -> None:
    notebook = run("02_train")
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert list(tmp_path.glob("runs/*/best.safetensors")), "it has trained a network"


@pytest.mark.slow
def test_quantization_notebook_finds_the_same_spikes_on_lava(run: Run) -> None:
    agrees = _last_value(run("03_quantize_and_verify"))
    assert agrees is (True if find_spec("lava") else None)  # without Lava the notebook says so and goes on


@pytest.mark.slow
def test_couples_settle_at_the_adjoint_solution(run: Run) -> None:
    found = _last_value(run("04_train_by_spikes"))
    assert -1.2 < found["slope, loss_scale 100"] < -0.8  # as one over the steps
    assert found["slope, loss_scale 400"] > -0.5  # a floor: some couples saturate
    assert found["SPIDE, 1000 steps, loss_scale 100"] < 0.05  # of the local updates; measured: 0.006
    assert min(found["spide"], found["ide"]) > 0.93  # both are at 0.97
    assert abs(found["spide"] - found["ide"]) < 0.02  # of 360 test images; measured: one image
