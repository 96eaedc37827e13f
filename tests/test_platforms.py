"""What only Linux and macOS have is not needed to import anything, nor are their paths."""

import subprocess
import sys
from pathlib import Path

import zarrloc
from zarrloc.images.files import base_name, folder_of, slashed
from zarrloc.store import lock

# As on macOS (no affinity) and Windows (none of these).
TAKE_AWAY = """
import importlib, os, pkgutil, signal, sys
import zarrloc, zarrloc_cli

def names():
    for package in (zarrloc, zarrloc_cli):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            yield found.name

# Other packages bring their own ways round: they are imported while all is there.
for name in names():
    importlib.import_module(name)
for name in [name for name in sys.modules if name.split(".")[0] in ("zarrloc", "zarrloc_cli")]:
    if name not in ("zarrloc", "zarrloc_cli"):
        del sys.modules[name]
for module in sys.argv[1:]:
    sys.modules[module] = None
for name in ("sched_getaffinity", "getuid", "geteuid", "fork", "killpg", "sysconf", "statvfs"):
    delattr(os, name)
os.process_cpu_count = os.cpu_count  # of Python 3.13: elsewhere it needs no affinity
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1"):
    delattr(signal, name)
count = 0
for name in names():
    importlib.import_module(name)
    count += 1
from zarrloc.simulate.write import cpu_count
assert cpu_count() >= 1
from zarrloc.pretraining.samples import _user
assert _user() == 0
print(count)
"""


def test_every_module_is_imported_without_what_windows_and_macos_lack() -> None:
    gone = ["resource", "pwd", "grp", "termios", "syslog"]
    if "import fcntl" not in Path(lock.__file__).read_text():
        gone.append("fcntl")
    done = subprocess.run(
        [sys.executable, "-c", TAKE_AWAY, *gone], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    modules = [file for file in Path(zarrloc.__file__).parent.rglob("*.py") if file.stem[0] != "_"]
    assert int(done.stdout.split()[-1]) > len(modules)


def test_paths_of_windows_become_addresses() -> None:
    raw = [slashed(rf"C:\data\raw\{name}.tif", "\\") for name in ("a b", "c#d")]
    assert raw == ["C:/data/raw/a b.tif", "C:/data/raw/c#d.tif"]
    assert [base_name(uri) for uri in raw] == ["a b.tif", "c#d.tif"]
    assert folder_of(raw) == "C:/data/raw"
    assert slashed("/data/back\\slash.tif", "/") == "/data/back\\slash.tif"
