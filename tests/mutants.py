"""Draw seeded mutants of the modules that decide bits and gradients, and report how many the tests kill.

    python tests/mutants.py --count 120 --seed 0

Needs the extra `mutation`: the operators are cosmic-ray's. Positions are drawn, the same number in each area, and one
mutation at each. Annotations, texts, asserts, decorators, ``strict=`` and the interning of literals (``is`` for ``==``)
are left alone. Each mutant is applied in a copy of the tree, and the tests of its area run until the first failure. A
survivor is a missing test, or a mutant that changes nothing.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

try:
    from cosmic_ray.ast import Visitor, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider
except ImportError as error:
    sys.stderr.write(f'tests/mutants.py needs cosmic-ray ({error}); install it with: pip install -e ".[mutation]"\n')
    sys.exit(2)

ROOT = Path(__file__).parents[1]
# Area -> files that are mutated, and the tests that run, quick ones first.
AREAS = {
    "quantizer": ("quantization/quantizer.py quantization/candidates.py quantization/rounding.py", "quantization"),
    "lowering": ("network/lowering.py", "conversion/test_lowering.py"),
    "overflow proof": ("hardware/overflow_proof.py", "hardware/test_overflow_proof.py backends/test_simulator.py"),
    "integer simulator": (
        "backends/simulator/plan.py kernels/neuron_step.py hardware/neurons.py",
        "hardware/test_network.py backends/test_simulator.py",
    ),
    "implicit gradient": (
        "training/gradients/ide.py network/fixed_point.py",
        "network/test_fixed_point.py training/gradients/test_ide.py",
    ),
    "verification": (
        "verification/compare_runs.py verification/agreement.py verification/structure.py verification/rates.py",
        "verification/test_compare_runs.py verification/test_structure_and_rates.py "
        "verification/test_planted_faults.py",
    ),
}
UNUSED = re.compile("Decorator|Variable|_(Eq|NotEq|Lt|LtE|Gt|GtE)_(Is|IsNot)$")
LEFT_ALONE = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """One change: file below the package, line, that line before and after, and the mutated source."""

    file: str
    line: int
    before: str
    after: str
    source: str


def left_alone(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end of what is not mutated: annotations, texts, asserts, imports."""
    nodes: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        nodes += [getattr(node, name, None) for name in ("annotation", "returns")]
        nodes += [node] if isinstance(node, LEFT_ALONE) or getattr(node, "arg", None) == "strict" else []
        nodes += getattr(node, "decorator_list", [])
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes if n is not None]


def positions(source: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """Line and column -> operators that apply there, each with the number of the occurrence in the file."""
    skipped, found = left_alone(source), {}
    for name in OperatorProvider():
        if UNUSED.search(name):
            continue
        operator = OperatorProvider()[name]()
        starts: list[tuple[int, int]] = []

        class Collect(Visitor):
            def visit(self, node: Any, operator: Any = operator, starts: list[Any] = starts) -> Any:
                starts.extend(start for start, _ in operator.mutation_positions(node))
                return node

        Collect().walk(get_ast(source))
        for occurrence, start in enumerate(starts):
            if not any(a <= start < b for a, b in skipped):
                found.setdefault(start, []).append((operator, occurrence))
    return found


def mutants(area: str, draw: Random) -> Iterator[Mutant]:
    """All positions of an area in random order, one mutant of each that is valid Python."""
    sources = {file: (ROOT / "fsnn_lava" / file).read_text() for file in AREAS[area][0].split()}
    places = [(file, *place) for file, source in sources.items() for place in sorted(positions(source).items())]
    for file, start, choices in draw.sample(places, len(places)):
        mutated = mutate_code(sources[file], *draw.choice(choices))
        try:
            compile(mutated, file, "exec")
        except SyntaxError:
            continue
        before, after = sources[file].splitlines(), mutated.splitlines()
        line = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), start[0] - 1)
        yield Mutant(file, line + 1, before[line].strip(), after[line].strip(), mutated)


def first_failure(area: str, copy: Path, timeout: float) -> str | None:
    """The first test of the area that fails in the copy, or what else ended the run; None if all pass."""
    tests = [str(copy / "tests" / name) for name in AREAS[area][1].split()]
    program = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *tests]
    own = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(copy / "numba")}
    env = {"OMP_NUM_THREADS": "1", **os.environ, **own}
    try:
        done = subprocess.run(program, cwd=copy, env=env, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "timeout"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    return (failed[1] if failed else f"exit status {done.returncode}") if done.returncode else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=120, help="mutants in total, shared by the areas (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a mutant counts as killed")
    parser.add_argument("--area", choices=AREAS, action="append", help="this area alone; may be repeated")
    options = parser.parse_args()
    areas = options.area or list(AREAS)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        for number, area in enumerate(areas):
            if failure := first_failure(area, copy, options.timeout):
                sys.exit(f"{area}: without any mutant: {failure}")
            verdicts = []
            for mutant in islice(mutants(area, Random(options.seed)), (options.count + number) // len(areas)):
                path = copy / "fsnn_lava" / mutant.file
                path.write_text(mutant.source)
                verdicts.append(by := first_failure(area, copy, options.timeout))
                shutil.copy(ROOT / "fsnn_lava" / mutant.file, path)
                print(f"{mutant.file}:{mutant.line}: {mutant.before} -> {mutant.after}: {by or 'SURVIVED'}", flush=True)
            print(f"{area}: {len(verdicts) - verdicts.count(None)} of {len(verdicts)} killed", flush=True)


if __name__ == "__main__":
    main()
