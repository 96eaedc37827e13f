from pathlib import Path

import pytest

from zarrloc.config.settings_file import read_settings
from zarrloc.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_settings_come_as_they_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("arch: vit_small\nbatch: 8\narch_options: [depth=4]\n")
    assert read_settings(file) == {"arch": "vit_small", "batch": 8, "arch_options": ["depth=4"]}
    file.write_text("")
    assert read_settings(file) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "aliases are not taken"),
        ("a: " + "[" * 5000, "nested deeper than 16"),
        ("batch: 1\nbatch: 2\n", "'batch' is given twice"),
        ("a: " + "x" * 70_000, "larger than 65,536 bytes"),
        ("- 1\n", "holds a list"),
        ("1: 2\n", "holds a dict"),
        ("just words", "holds a str"),
        ("a: !!python/object/apply:os.system ['touch owned']", "no usable YAML"),
        ("a: 2026-13-45", "no usable YAML"),
        ("a: " + "9" * 5000, "no usable YAML"),
        ("a: [1", "no usable YAML"),
        ("\x00", "no usable YAML"),
        ("? [1]\n: 2", "no usable YAML"),
    ],
)
def test_anything_else_is_refused_at_once(content: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        read_settings(file)


def test_bytes_that_are_no_text_and_a_folder_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(b"a: \xff\xfe\x80")
    with pytest.raises(ConfigError, match="no usable YAML"):
        read_settings(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path)
