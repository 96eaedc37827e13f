"""Would the tests notice? Small faults planted in `zarrloc/pretraining`, one at a time.

    python benchmarks/mutate.py [--only dino,loop] [--skip data] [--own]
        [--limit 300] [--minutes 25]
    python benchmarks/mutate.py --again FILE

Every operator, comparison, condition, number and bare call of a module is changed once: `<` becomes
`<=`, `+` becomes `-`, `*` becomes `/`, `and` becomes `or`, a condition its opposite, a number its
neighbour, a call nothing. Messages, annotations and docstrings stay as they are, and so does what
only asserts (`assert`, a zip's `strict`, a dataclass's `frozen`). The module's own tests (or those
that import it) run on a copy of the tree until one fails: then the mutant is killed. One that they
let live meets all tests of the room and of its stage (not so with `--own`). One that outlives the
time limit is told apart. `--again` takes what lived in an earlier run of the same code to the tests
as they are now, and writes its fate into FILE. `--limit` draws that many mutants by a seed, from
all modules alike, and `--minutes` ends a run: the order is the seed's, so what was tried is a
random sample either way, and the same one next time. Limits are of CPU time, since other work on
the machine should not decide a mutant's fate. Tests run in forked children of one process that has
torch and the rest of the libraries in memory already.
"""

import argparse
import ast
import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
ROOM = "zarrloc/pretraining"
WARM = (
    "numpy",
    "torch",
    "zarrloc.models.torchvision_shim",
    "timm",
    "zarr",
    "xarray",
    "scipy",
    "sklearn",
    "pytest",
    "tifffile",
)
LEFT_OUT = "not two_processes and not all_processes and not ahead_works and not at_once"
"""Tests that start processes of their own, which takes long, or go by the clock."""
EVERYTHING = ["tests/pretraining", "tests/stages/test_pretrain.py"]
WAITS = 8
"""A mutant's time by the clock, in its CPU time: one that waits for ever uses none."""
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one file."""

    module: str
    line: int
    change: str
    source: str


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of `node`."""
    other = copy.deepcopy(node)
    if isinstance(other, ast.Compare) and type(other.ops[0]) in COMPARISONS:
        other.ops[0] = COMPARISONS[type(other.ops[0])]()
        yield other
    elif isinstance(other, ast.BinOp | ast.AugAssign) and type(other.op) in OPERATORS:
        other.op = OPERATORS[type(other.op)]()
        yield other
    elif isinstance(other, ast.BoolOp):
        other.op = ast.Or() if isinstance(other.op, ast.And) else ast.And()
        yield other
    elif isinstance(other, ast.UnaryOp) and isinstance(other.op, ast.Not | ast.USub | ast.Invert):
        yield other.operand
    elif isinstance(other, ast.If | ast.IfExp | ast.While):
        other.test = ast.UnaryOp(ast.Not(), other.test)
        yield other
    elif isinstance(other, ast.Constant) and isinstance(other.value, bool):
        yield ast.Constant(not other.value)
    elif isinstance(other, ast.Constant) and isinstance(other.value, int | float):
        yield ast.Constant(other.value + 1)
    elif isinstance(other, ast.Expr) and isinstance(other.value, ast.Call):
        yield ast.Pass()


def untouched(node: ast.AST) -> set[int]:
    """Nodes under `node` of messages, assertions, annotations and type aliases, by identity."""
    found: set[int] = set()
    for each in ast.walk(node):
        parts: list[ast.AST | None] = []
        asserts = isinstance(each, ast.keyword) and each.arg in ("strict", "frozen")
        if asserts or isinstance(
            each, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert
        ):
            parts = [each]
        elif isinstance(each, ast.AnnAssign | ast.arg):
            parts = [each.annotation]
        elif isinstance(each, ast.FunctionDef):
            parts = [each.returns]
        for part in parts:
            found |= {id(inner) for inner in ast.walk(part)} if part is not None else set()
    return found


def mutants(path: Path) -> Iterator[Mutant]:
    """All of a file, in the order of its lines."""
    tree = ast.parse(path.read_text())
    kept = untouched(tree)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            items = value if isinstance(value, list) else [value]
            for at, node in enumerate(items):
                if not isinstance(node, ast.AST) or id(node) in kept or id(parent) in kept:
                    continue
                for other in changes(node):
                    before = ast.unparse(node).splitlines()[0]
                    after = ast.unparse(ast.fix_missing_locations(ast.copy_location(other, node)))
                    if isinstance(value, list):
                        value[at] = other
                    else:
                        setattr(parent, name, other)
                    source = ast.unparse(ast.fix_missing_locations(tree))
                    if isinstance(value, list):
                        value[at] = node
                    else:
                        setattr(parent, name, node)
                    change = f"{before}  ->  {after.splitlines()[0]}"
                    yield Mutant(path.stem, getattr(node, "lineno", 0), change, source)


def tests_of(module: str, root: Path) -> list[str]:
    """The module's own test file; else those that import it, the stage's where none does."""
    folder = root / "tests/pretraining"
    own = folder / f"test_{module}.py"
    found = [own] if own.exists() else [f for f in sorted(folder.glob("test_*.py"))
                                        if module in imported(f)]  # fmt: skip
    found = found or [root / "tests/stages/test_pretrain.py"]
    return [str(file.relative_to(root)) for file in found]


def imported(file: Path) -> set[str]:
    """Modules of the room that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "zarrloc.pretraining":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(
            "zarrloc.pretraining."
        ):
            found.add(str(node.module).split(".")[2])
    return found


def run(tests: list[str], root: Path, seconds: float) -> str:
    """`killed`, `survived` or `timeout`: the tests on the tree as it stands, in a child."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (round(seconds), round(seconds) + 5))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.chdir(root)
        sys.path[:0] = [str(root), str(root / "cli")]
        code = 1
        try:
            import pytest

            code = int(
                pytest.main(
                    [
                        "-x",
                        "--assert=plain",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "-k",
                        LEFT_OUT,
                        "-m",
                        "not slow and not drill",
                        *tests,
                    ]
                )
            )
        finally:
            os._exit(code)
    end = time.monotonic() + WAITS * seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: "survived", -signal.SIGXCPU: "timeout"}.get(code, "killed")
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def cpu_minutes() -> float:
    """Spent by this process and by its children that have ended."""
    spent = os.times()
    return (spent.user + spent.system + spent.children_user + spent.children_system) / 60


def main() -> None:
    """Plant, test, save; exit code 1 where the tests fail without a mutant."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="modules, comma-separated")
    parser.add_argument("--skip", default="", help="modules left out, comma-separated")
    parser.add_argument("--own", action="store_true", help="by the module's own tests alone")
    parser.add_argument("--again", type=Path, help="an earlier run's FILE, whose survivors to try")
    parser.add_argument("--limit", type=int, help="so many mutants, drawn from all")
    parser.add_argument(
        "--minutes", type=float, default=600, help="begin no mutant after so much CPU time"
    )
    parser.add_argument("--seconds", type=float, default=60, help="a mutant's CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/mutate.json")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True  # its cache goes by the second: a mutant may come within one
    sys.path.insert(0, str(ROOT))
    for name in WARM:
        __import__(name)
    own = {name: sys.modules.pop(name) for name in [*sys.modules] if name.startswith("zarrloc")}
    assert own  # held: an operator that PyTorch was told of goes with whoever told it
    del sys.path[0]
    modules = {file.stem for file in (ROOT / ROOM).glob("*.py")} - set(given.skip.split(","))
    if only := set(given.only.split(",")) - {""}:
        modules &= only
    told: dict[str, Any] = {"seed": given.seed, "modules": sorted(modules), "rows": []}
    if given.again:
        told, given.out = json.loads(given.again.read_text()), given.again
    every = [one for name in told["modules"] for one in mutants(ROOT / ROOM / f"{name}.py")]
    told["of"] = len(every)
    numbers = range(len(every))
    drawn = random.Random(told["seed"]).sample(numbers, min(given.limit or len(every), len(every)))
    if given.again:
        drawn = [row["number"] for row in told["rows"] if row["fate"] == "survived"]
        if any(every[row["number"]].change != row["change"] for row in told["rows"]):
            sys.exit(f"{given.again} is of other code: its mutants are not these")
    print(f"{len(every)} mutants, {len(drawn)} drawn", flush=True)
    rows: list[dict[str, Any]] = told["rows"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("zarrloc", "cli", "tests", "schemas", "benchmarks"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        sound: set[str] = set()
        for number in drawn:
            mutant = every[number]
            if cpu_minutes() > given.minutes:
                break
            if mutant.module not in sound:
                if run(tests_of(mutant.module, root), root, 9 * given.seconds) != "survived":
                    sys.exit(f"the tests of {mutant.module} fail without a mutant")
                sound.add(mutant.module)
            file = root / ROOM / f"{mutant.module}.py"
            before = file.read_text()
            file.write_text(mutant.source)
            fate = run(tests_of(mutant.module, root), root, given.seconds)
            if fate == "survived" and not given.own:
                fate = run(EVERYTHING, root, 9 * given.seconds)
            file.write_text(before)
            row = {"number": number, **mutant._replace(source="")._asdict(), "fate": fate}
            rows[:] = [one for one in rows if one["number"] != number] + [row]
            if fate == "survived":
                print(f"{mutant.module}:{mutant.line}  {mutant.change}", flush=True)
            survived = sum(one["fate"] == "survived" for one in rows)
            told |= {"tried": len(rows), "survived": survived}
            given.out.write_text(json.dumps(told, indent=1) + "\n")
    fates = [row["fate"] for row in rows]
    print({fate: fates.count(fate) for fate in ("killed", "timeout", "survived")})


if __name__ == "__main__":
    main()
