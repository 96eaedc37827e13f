import os
from pathlib import Path

import pytest

from zarrloc.errors import SourceError
from zarrloc.images import files
from zarrloc.store.location import object_store


def test_objects_are_listed_stamped_and_read() -> None:
    store = object_store("memory://test-files")
    store.put("plate/a.tif", b"aa")
    store.put("plate/.hidden/b.tif", b"b")
    store.put("other/c.tif", b"c")
    (listed,) = files.walk("memory://test-files/plate")
    assert (listed.uri, listed.name, listed.size) == ("memory://test-files/plate/a.tif", "a.tif", 2)
    assert listed.stamp
    assert files.stat(listed.uri) == listed
    assert files.content(listed.uri) == b"aa"
    store.put("plate/a.tif", b"bb")
    assert files.stat(listed.uri).stamp != listed.stamp
    assert len(list(files.walk("memory://test-files"))) == 2


def test_an_absent_object_is_a_problem_and_reading_it_an_error() -> None:
    uri = "memory://test-files/absent.tif"
    assert files.stat(uri).problem.startswith("cannot be opened")
    with pytest.raises(SourceError, match="cannot be opened"):
        files.content(uri)


def test_a_public_bucket_is_opened_unsigned() -> None:
    store, key = files._located("s3://czb-opencell/microscopy/raw", True)
    assert (store.config["bucket"], key) == ("czb-opencell", "microscopy/raw")
    assert store.config["skip_signature"]
    signed, _ = files._located("s3://czb-opencell/microscopy/raw", False)
    assert "skip_signature" not in signed.config


def test_a_name_that_is_not_utf8_is_a_problem_of_that_file(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = files.walk(str(tmp_path))
    assert file.problem == "has a name that is not UTF-8; rename it"
    file.uri.encode()
