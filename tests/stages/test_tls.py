"""`--cluster tls://`: a scheduler, a worker and the command, each a process, with certificates.

Commands and settings are those of `examples/clusters/tls.yaml`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.objects import opened
from tests.s3 import free_port
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.run import RunConfig
from zarrloc.stages.embed import embed

EXAMPLE = Path(__file__).parents[2] / "examples" / "clusters" / "tls.yaml"
COMMAND = [sys.executable, "-c", "from zarrloc_cli.main import main; main()"]
EMBED = {"backbone": "dino-vits16", "weights": "random:0", "size": "32"}
START_S = 60.0


def _settings(folder: Path) -> dict[str, str]:
    """A fresh certificate and settings for it in `folder`, made as the example says."""
    (command,) = re.findall(r"^#\s+(openssl .*)$", EXAMPLE.read_text(), re.MULTILINE)
    folder.mkdir()
    short = shlex.split(command.replace("rsa:4096", "rsa:2048"))
    subprocess.run(short, cwd=folder, check=True, capture_output=True)
    settings = yaml.safe_load(EXAMPLE.read_text())
    text = json.dumps(settings).replace("cert.pem", f"{folder}/cert.pem")
    (folder / "dask.yaml").write_text(text.replace("key.pem", f"{folder}/key.pem"))
    return {**os.environ, "DASK_CONFIG": str(folder / "dask.yaml")}


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a running encrypted scheduler with one worker, and who is let in."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    environment, port = _settings(tmp_path / "own"), str(free_port())
    address = f"tls://127.0.0.1:{port}"
    commands = [
        ["dask_scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", port],
        ["dask_worker", address, "--nthreads", "2", "--no-nanny"],
    ]
    with ExitStack() as stack:
        log = stack.enter_context(open(tmp_path / "log", "w"))
        for module, *arguments in commands:
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, "--no-dashboard"],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
            stack.callback(process.terminate)
        end = time.monotonic() + START_S
        while "Registered to" not in (tmp_path / "log").read_text():
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield address, environment


def _embed(
    store: Path, address: str, environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    flags = [f for name, value in EMBED.items() for f in (f"--{name}", value)]
    arguments = ["embed", str(store), *flags, "--name", "e", "--cluster", address]
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_stage_runs_over_tls_and_strangers_are_refused(
    fresh: Callable[[str], Path], encrypted: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = encrypted
    there, here = fresh("there"), fresh("here")
    strangers = [
        (address, dict(os.environ), 2, "needs certificates"),
        (address, _settings(tmp_path / "other"), 1, "no Dask scheduler answers"),
        (address.replace("tls", "tcp"), dict(os.environ), 1, "no Dask scheduler answers"),
    ]
    for who, own, code, words in strangers:
        refused = _embed(there, who, own)
        assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        assert not list(there.glob("embeddings/e/embedding/c*"))
    done = _embed(there, address, environment)
    assert done.returncode == 0, done.stderr
    embed(here, EmbedConfig(**EMBED), "e", run=RunConfig(cluster="serial"))
    over_tls, local = (opened(store, "embeddings/e") for store in (there, here))
    assert not (over_tls.error != "").any()
    # To the last bit they are the same only with as many threads.
    np.testing.assert_allclose(over_tls.embedding, local.embedding, rtol=1e-4, atol=1e-5)
