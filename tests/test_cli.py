import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from zarrloc_cli import main as cli
from zarrloc_cli.options import config_options, split

import zarrloc
from tests.image_files import write_opencell
from tests.labelled_store import make_store
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.engine.verify import Finding
from zarrloc.errors import ConfigError, LockedError

NAMES = cli.zarrloc.list_commands(click.Context(cli.zarrloc))


def _call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    code = end.value.code
    assert isinstance(code, int)
    return code


# --- help ---------------------------------------------------------------------------------------


def test_every_command_has_a_module_and_is_listed() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    helpers = {"__init__", "main", "commands", "options", "names", "output", "faults", "stops"}
    assert modules - helpers == set(NAMES)
    assert {"ingest", "embed", "info", "verify", "backbones", "simulate"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_what_it_does_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(name, "--help") == 0
    said = capsys.readouterr().out
    assert re.search(rf"^ +zarrloc {name}\b", said, re.MULTILINE), said
    command = cli.zarrloc.get_command(click.Context(cli.zarrloc), name)
    assert command is not None
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", ""), parameter


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from zarrloc_cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'xarray', 'numpy', 'zarr', 'dask', 'distributed', 'sklearn',"
        " 'tifffile', 'obstore', 'rich', 'pandas', 'PIL', 'skimage'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    for name in NAMES:
        assert re.search(rf"^  {name}  +\S", run.stdout, re.MULTILINE), name


def test_help_is_in_groups_with_whole_lines_and_fits_a_screen() -> None:
    said = CliRunner().invoke(cli.zarrloc, ["--help"]).output
    assert "..." not in said.replace("[ARGS]...", "")
    assert len(said.splitlines()) <= 45
    for heading, group in cli.COMMANDS.items():
        assert f"\n{heading}:\n" in said
        for name, text in group.items():
            assert re.search(rf"^  {name} +{re.escape(text)}$", said, re.MULTILINE), name


def test_options_come_in_sections_common_things_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("pretrain", "--help") == 0
    said = capsys.readouterr().out
    order = ["Options", "Optimisation", "Views", "Objective", "Guard", "Where it runs", "Output"]
    places = [said.index(f"\n{heading}:\n") for heading in order]
    assert places == sorted(places)
    assert said.index("--epochs") < places[1] < said.index("--weight-decay") < places[2]
    assert said.index("--precision [auto|fp32|bf16]") > places[5]


@pytest.mark.parametrize("name", [name for name in dir(zarrloc) if name.endswith("Config")])
def test_sections_name_settings_that_are_there(name: str) -> None:
    config = getattr(zarrloc, name)
    named = [one for names in config.SECTIONS.values() for one in names]
    assert len(set(named)) == len(named)
    assert set(named) <= config.model_fields.keys()


def test_what_must_be_given_comes_first_and_arguments_without_a_word_not_at_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call("train", "--help") == 0
    options = capsys.readouterr().out.partition("Options:\n")[2]
    flags = re.findall(r"^  (--[a-z-]+)", options, re.MULTILINE)
    assert flags[:3] == ["--name", "--embedding", "--split"]
    assert not re.search(r"^  STORE$", options, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["embd"], "No such command 'embd'. Did you mean 'embed'?"),
     (["evalute", "x"], "Did you mean 'evaluate'?"),
     (["qqqq"], "No such command 'qqqq'."),
     (["info", "x", "--erors"], "Did you mean '--errors'?"),
     (["embed", "x", "--bakbone", "b"], "Did you mean '--backbone'?")],
)  # fmt: skip
def test_a_typo_gets_the_nearest(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(*arguments) == 2
    said = capsys.readouterr().err
    if "--" in words and tuple(map(int, version("click").split(".")[:2])) < (8, 2):
        # it quotes no option
        words = words.replace("'--", "--").replace("'?", "?")
    assert words in said


def test_the_version_says_what_it_runs_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("--version") == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"zarrloc, version {version('zarrloc')}\nPython {sys.version.split()[0]}"
    )
    for name in ("numpy", "zarr", "xarray", "dask", "torch"):
        assert f"{name} {version(name)}" in said


# --- what is printed ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_quiet_and_json_are_on_every_command(name: str) -> None:
    command = cli.zarrloc.get_command(click.Context(cli.zarrloc), name)
    assert command is not None
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        flags = {option for parameter in one.params for option in parameter.opts}
        assert {"--quiet", "--json"} <= flags


def test_json_is_one_object_and_quiet_is_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = Summary("fovs", 9, 3, blocks_run=3, rows_run=9, rows_failed=1, wall_s=float("nan"))
    monkeypatch.setattr("zarrloc.stages.embed.embed", Called(summary))
    words = ["embed", "oc.zarr", "--name", "e", "--backbone", "dino-vits8"]
    assert _call(*words, "--json") == 3
    printed = json.loads(capsys.readouterr().out)
    assert (printed["group"], printed["rows_failed"], printed["exit_code"]) == ("fovs", 1, 3)
    assert printed["wall_s"] is None
    assert _call(*words, "--quiet") == 3
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("zarrloc").level == logging.ERROR
    assert _call(*words) == 3
    assert "fovs: 9 rows" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "colored"), [("", True), ("1", False)])
def test_no_color_is_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    value: str, colored: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("zarrloc_cli.demo.STEPS", "split {d}/x.zarr --name a")
    monkeypatch.setattr("zarrloc.stages.split.split", Called(Summary("splits/a", 1, 1)))
    terminal = click.utils.should_strip_ansi
    monkeypatch.setattr(
        "click.utils.should_strip_ansi",
        lambda stream=None, color=None: False if color is None else terminal(stream, color),
    )
    monkeypatch.setenv("NO_COLOR", value)
    assert _call("demo", str(tmp_path / "d")) == 0
    assert ("\x1b[1m" in capsys.readouterr().out) == colored


# --- completion ---------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return make_store(tmp_path / "oc.zarr", proteins=4, fields=1)


def _completed(words: str, begun: str) -> list[str]:
    completing = ShellComplete(cli.zarrloc, {}, "zarrloc", "_ZARRLOC_COMPLETE")
    return [item.value for item in completing.get_completions(shlex.split(words), begun)]


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [("", "ing", ["ingest"]),
     ("train {s} --embedding", "", ["noise", "planted"]),
     ("evaluate {s} --embedding", "pl", ["planted"]),
     ("annotate {s} --channels", "", ["nucleus", "protein"]),
     ("annotate {s} --channels", "protein,", ["protein,nucleus"]),
     ("export {s}", "", ["fovs", "embeddings/noise", "embeddings/planted"]),
     ("export {s} fovs o.csv --to", "x", ["xlsx"]),
     ("preview {s} --segmentation", "", []),
     ("embed {s} --name", "no", ["noise"]),
     ("split {s} --group", "", ["auto", "image", "cell_line", "ensg", "plate", "protein"]),
     ("train {s} --target", "p", ["plate", "protein"]),
     ("evaluate {s} --exclude-same", "n", ["none"]),
     ("segment {s} --grow", "", ["none", "nucleus", "protein"]),
     ("embed {s} --cluster", "s", ["serial", "slurm", "s"]),
     ("embed {s} --pre", "--pre", ["--precision"]),
     ("train none.zarr --embedding", "", [])],
)  # fmt: skip
def test_names_of_the_store_are_completed(
    filled: Path, words: str, begun: str, found: list[str]
) -> None:
    assert _completed(words.format(s=filled), begun) == found


def test_a_head_of_another_store_is_completed_by_its_address(filled: Path) -> None:
    (filled / "heads" / "h").mkdir(parents=True)
    assert _completed("predict new.zarr --head", f"{filled}/heads/") == [f"{filled}/heads/h"]
    assert _completed(f"evaluate {filled} --head", "") == ["h"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_set_up_by_a_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("completion", shell) == 0
    assert "_ZARRLOC_COMPLETE" in capsys.readouterr().out


def test_bash_completes_for_real(filled: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    line = f"zarrloc train {filled} --embedding pl"
    env = {
        **os.environ, "_ZARRLOC_COMPLETE": "bash_complete", "COMP_WORDS": line,
        "COMP_CWORD": str(len(shlex.split(line)) - 1),
    }  # fmt: skip
    zarrloc = str(Path(sys.executable).with_name("zarrloc"))
    run = subprocess.run([zarrloc], env=env, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "plain,planted"


# --- a command is one library call --------------------------------------------------------------


class Called(list[Any]):
    """Stands for a library function, and notes what it got."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.append((arguments, options))
        return self.result


def test_ingest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called(Summary("fovs", 9, 3, blocks_run=3, rows_run=9))
    monkeypatch.setattr("zarrloc.stages.ingest.ingest", called)
    options = ["--labels", "l.csv", "--cell-lines", "c.csv", "--channels", "DAPI, GFP", "--rehash"]
    options += ["--field-size", "600x700", "--shard-fovs", "5", "--workers", "3", "--retry-failed"]
    assert _call("ingest", "raw", "oc.zarr", *options) == 0
    ((arguments, rest),) = called
    config = IngestConfig(channels=("DAPI", "GFP"), field_size="600x700", shard_fovs=5)
    assert arguments == ("raw", "oc.zarr", config)
    assert rest == {
        "run": RunConfig(workers=3, retry_failed=True), "overwrite": False, "rehash": True,
        "labels": Path("l.csv"), "cell_lines": Path("c.csv"), "manifest": None,
        "unsigned": False, "conditions": None, "label_names": None,
    }  # fmt: skip
    assert "fovs: 9 rows in 3 of 3 blocks" in capsys.readouterr().out


def test_ingest_of_a_manifest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(Summary("fovs", 9, 3))
    monkeypatch.setattr("zarrloc.stages.ingest.ingest", called)
    assert _call("ingest", "oc.zarr", "--manifest", "m.csv") == 0
    assert called[0][0] == (None, "oc.zarr", IngestConfig())
    assert called[0][1]["manifest"] == Path("m.csv")
    assert _call("ingest", "oc.zarr") == 2


def test_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(Summary("embeddings/e", 9, 3, rows_failed=2))
    monkeypatch.setattr("zarrloc.stages.embed.embed", called)
    options = ["--backbone", "dino-vits8", "--weights", "random:0", "--cluster", "serial"]
    assert _call("embed", "oc.zarr", "--name", "e", *options) == 3
    config = EmbedConfig(backbone="dino-vits8", weights="random:0")
    run = RunConfig(cluster="serial")
    assert called == [(("oc.zarr", config, "e"), {"run": run, "overwrite": False})]


def test_info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"store": "oc.zarr", "format": 1, "groups": {}}
    called = Called(found)
    monkeypatch.setattr("zarrloc.store.info.info", called)
    assert _call("info", "oc.zarr", "--json", "--errors") == 0
    assert called == [(("oc.zarr",), {"errors": True})]
    assert json.loads(capsys.readouterr().out) == found


def test_verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called = Called([Finding("fovs", 3, 1, {2: "its object is missing"})])
    monkeypatch.setattr("zarrloc.engine.verify.verify", called)
    assert _call("verify", "oc.zarr", "--deep") == 3
    assert called == [(("oc.zarr",), {"deep": True, "repair": False, "run": RunConfig()})]
    assert "block 2: its object is missing" in capsys.readouterr().out
    assert _call("verify", "oc.zarr", "--repair") == 0


def test_simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    from zarrloc.simulate.write import Summary as Written

    called = Called(Written("sim", 2, 1, 30))
    monkeypatch.setattr("zarrloc.simulate.simulate", called)
    assert _call("simulate", "sim", "--fovs", "2", "--size", "128", "--seed", "3") == 0
    assert called == [((Path("sim"), SimulateConfig(fovs=2, size=128, seed=3)), {})]


def test_backbones_are_all_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zarrloc.models.specs import SPECS

    monkeypatch.setenv("COLUMNS", "250")
    assert _call("backbones") == 0
    said = capsys.readouterr().out
    for name in SPECS:
        assert name in said


# --- exit codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        (ConfigError("got a, expected b"), 2, "zarrloc: got a, expected b\n"),
        (LockedError("held by run x"), 4, "zarrloc: held by run x\n"),
        (KeyboardInterrupt(), 1, "zarrloc: stopped; the same command continues from here\n"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    what: BaseException, code: int, words: str,
) -> None:  # fmt: skip
    def fail(*_: Any, **__: Any) -> None:
        raise what

    monkeypatch.setattr("zarrloc.store.info.info", fail)
    assert _call("info", "oc.zarr") == code
    assert capsys.readouterr().err.lstrip() == words  # click ends the line of a ^C


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarrloc.store.info.info", Called(7))
    with pytest.raises(TypeError):
        cli.main(["info", "oc.zarr"])


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["info"], ["info", "x", "--nonsense"], ["embed", "x", "--name", "e"],
     ["embed", "x", "--name", "e", "--backbone", "b", "--norm", "odd"], ["info", "/none/at/all"]],
)  # fmt: skip
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_must_be_given_is_missed_by_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = cli.zarrloc.get_command(click.Context(cli.zarrloc), name)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    needed = [one.opts[0] for one in options if one.required]
    words = [str(tmp_path / "x")] * sum(one.required for one in command.params
                                        if isinstance(one, click.Argument))  # fmt: skip
    for missing in needed:
        given = [word for flag in needed if flag != missing for word in (flag, str(tmp_path))]
        assert _call(name, *words, *given) == 2
        assert f"Missing option '{missing}'" in capsys.readouterr().err


def test_exit_codes_of_a_run() -> None:
    assert Summary("g", 3, 1).exit_code == 0
    assert Summary("g", 3, 1, rows_failed=1).exit_code == 3
    assert Summary("g", 3, 1, rows_failed=1, failures=["x"]).exit_code == 1


# --- options from configs -----------------------------------------------------------------------


def test_defaults_and_help_come_from_the_config() -> None:
    @click.command()
    @config_options(RunConfig)
    @config_options(IngestConfig)
    def command(**options: Any) -> None:
        run, ingest, rest = split({**options, "other": 1}, RunConfig, IngestConfig)
        assert (run, ingest, rest) == (RunConfig(), IngestConfig(), {"other": 1})

    command.main([], standalone_mode=False)
    flags = {option for parameter in command.params for option in parameter.opts}
    assert {"--memory-limit", "--field-size", "--retry-failed"} <= flags
    help_text = command.get_help(click.Context(command))
    assert "[default: :8787]" in help_text


def test_all_problems_are_listed_at_once_by_their_names() -> None:
    with pytest.raises(ConfigError, match=r"field_size: .*\(got '6'\); shard_fovs: .*\(got 0\)"):
        IngestConfig.of({"shard_fovs": 0, "field_size": "6"})


# --- the main job -------------------------------------------------------------------------------


def test_the_main_job_through_the_installed_command(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 5, shape=(2, 40, 40))
    zarrloc = str(Path(sys.executable).with_name("zarrloc"))

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [zarrloc, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )

    said = call("ingest", "raw", "oc.zarr", "--shard-fovs", "2", "--cluster", "serial")
    assert "fovs: 5 rows in 3 of 3 blocks" in said.stdout
    options = ["--backbone", "timm:test_vit", "--weights", "random:0", "--dashboard", ":0"]
    options += ["--workers", "1"]  # or so little would start none
    said = call("embed", "oc.zarr", "--name", "smoke", *options)
    assert "bottleneck: " in said.stdout
    assert "Dask dashboard: http://" in said.stderr
    assert "Traceback" not in said.stderr
    assert "Warning" not in said.stderr
    described = json.loads(call("info", "oc.zarr", "--json").stdout)
    assert described["groups"]["embeddings/smoke"]["blocks"] == {"total": 3, "done": 3}
    code = "import xarray; print(xarray.open_zarr('oc.zarr', group='embeddings/smoke'))"
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "embedding" in shown.stdout
