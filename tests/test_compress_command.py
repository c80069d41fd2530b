"""The commands ``skflows compress`` and ``skflows decompress``."""

import contextlib
import io
import json
import shlex
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from skflows import FlowCompressor, NICEDensity
from skflows.cli import _main

pytest.importorskip("constriction")
Image = pytest.importorskip("PIL.Image")


def run(line):
    """Run ``skflows`` with these arguments and return the exit code."""
    return _main.main(shlex.split(line))


def write_images(folder, sizes, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i, size in enumerate(sizes):
        pixels = rng.integers(0, 7, size=size, dtype=np.uint8) * 40
        Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images and a table, with their models and files."""
    folder = tmp_path_factory.mktemp("compress")
    write_images(folder / "images", [(4, 6, 3)] * 30)
    rng = np.random.default_rng(0)
    counts = rng.poisson(4, size=(60, 2))
    frame = pd.DataFrame({"first": counts[:, 0], "second": counts.sum(axis=1), "third": 7})
    frame.to_csv(folder / "counts.csv", index=False, sep=";")
    for name, data in ("images", "images"), ("counts", "counts.csv"):
        model, output = folder / f"{name}.skflows", folder / f"{name}.skfc"
        line = f"compress {folder / data} -o {output} --model {model} --max-iter 1 --random-state 0"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert run(line) == 0
        assert "(the model was fitted to these " in out.getvalue()
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """Change to a working directory with copies of the files."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_images_come_back(folder, capsys):
    assert run("decompress images.skfc --model images.skflows -o restored/") == 0
    for file in folder.glob("images/*.png"):
        restored = np.asarray(Image.open(folder / "restored" / file.name))
        np.testing.assert_array_equal(restored, np.asarray(Image.open(file)))
    assert len([*folder.glob("restored/*")]) == 30
    out, err = capsys.readouterr()
    assert (out, err) == ("wrote restored: 30 images\n", "")


def test_single_images(folder, capsys):
    write_images(folder / "one", [(4, 6, 3)])
    assert run("compress one --model images.skflows -o one.skfc") == 0
    assert " bytes for 1 image, " in capsys.readouterr().out
    assert run("decompress one.skfc --model images.skflows -o restored/") == 0
    pixels = [np.asarray(Image.open(folder / name / "0.png")) for name in ("one", "restored")]
    np.testing.assert_array_equal(*pixels)


def test_tables_come_back_in_the_form_of_the_fit(folder, capsysbinary, monkeypatch):
    assert run("decompress counts.skfc --model counts.skflows -o restored.csv") == 0
    text = (folder / "counts.csv").read_text()
    assert (folder / "restored.csv").read_text() == text
    # Another table, whose columns have another order, by the stored model.
    frame = pd.read_csv("counts.csv", sep=";")[::-1]
    frame[["third", "first", "second"]].to_csv("others.csv", index=False)
    assert run("decompress counts.skfc --model counts.skflows -o parts/") == 0
    pd.testing.assert_frame_equal(pd.read_parquet("parts"), pd.read_csv("counts.csv", sep=";"))
    capsysbinary.readouterr()
    assert run("compress others.csv --model counts.skflows -o -") == 0
    out, err = capsysbinary.readouterr()
    assert b"for 60 rows" in err
    (folder / "others.skfc").write_bytes(out)
    assert run("decompress others.skfc --model counts.skflows -o restored.csv") == 0
    restored = pd.read_csv("restored.csv", sep=";")
    pd.testing.assert_frame_equal(restored, frame.reset_index(drop=True))


def test_folders_hold_a_file_of_the_name_of_the_data(folder, capsys):
    (folder / "old").mkdir()
    for output in "new/", "old":
        assert run(f"compress counts.csv -o {output} --model counts.skflows") == 0
        file = folder / output / "counts.skfc"
        assert file.read_bytes() == (folder / "counts.skfc").read_bytes()
        assert f"wrote {output.rstrip('/')}/counts.skfc: " in capsys.readouterr().out
    assert run("compress images -o new/ --model images.skflows") == 0
    assert "was fitted to" not in capsys.readouterr().out
    assert run("compress counts.csv -o none/file --model counts.skflows") == 2
    assert "cannot write none/file: No such file" in capsys.readouterr().err


def test_images_need_a_folder(folder, capsys):
    for output, remedy in ("y.csv", "give y.csv/"), ("-", "give one, not standard output"):
        assert run(f"decompress images.skfc -o {output} --model images.skflows") == 2
        assert remedy in capsys.readouterr().err
        assert not (folder / output).exists()
    assert run("decompress images.skfc -o y.csv/ --model images.skflows") == 0
    assert len([*folder.glob("y.csv/*")]) == 30
    (folder / "restored.v2").mkdir()
    assert run("decompress images.skfc -o restored.v2 --model images.skflows") == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compress counts.csv --model images.skflows", "images.skflows compresses images"),
        ("compress images --model counts.skflows", "counts.skflows compresses tables"),
        ("compress images --model images.skflows --max-iter 3", "--max-iter is for a new model"),
        ("compress other --model images.skflows", "images of 4 x 4 pixels of 1 channels, "),
        ("compress sizes --model new", "sizes/1.png has the shape (4, 6, 1)"),
        ("compress deep --model new", "0.png has pixels of mode 'I;16': convert"),
        ("compress one --model new", "one has only one image, and there is no new yet"),
        ("compress row.csv --model new", "row.csv has only one row, and there is no new yet"),
        ("compress empty --model new", "empty has no images"),
        ("compress one/0.png --model new", "0.png is an image: give a folder of images (.png"),
        ("compress texts.WEBP --model new", "texts.WEBP is an image: give a folder of images"),
        ("compress none.png --model new", "cannot read none.png: No such file"),
        ("decompress none.skfc --model images.skflows", "cannot read none.skfc: No such file"),
        ("decompress images --model images.skflows", "cannot read images: Is a directory"),
        ("compress broken --model new", "cannot read broken/0.png: "),
        ("compress . --model new", "broken is no image: . may only have"),
        ("compress more.csv --model counts.skflows", "lacks, 'fourth': leave them out"),
        ("compress fractions.csv --model new", "has 0.5 in column 'first', row 2: only whole"),
        ("compress texts.csv --model new", "only whole numbers can be compressed"),
        ("compress counts.csv --model none/new", "cannot write none/new: No such file"),
        (
            "decompress counts.skfc --model images.skflows",
            "holds a table, but images.skflows compresses",
        ),
        (
            "decompress images.skfc --model counts.skflows",
            "holds images, but counts.skflows compresses",
        ),
        (
            "decompress counts.csv --model images.skflows",
            "counts.csv was not written by skflows compress",
        ),
        (
            "decompress counts.csv --model counts.skflows",
            "counts.csv was not written by skflows compress",
        ),
        ("decompress counts.skfc --model other.skflows", "rows: give the model that wrote it"),
        ("score images.skflows counts.csv", "use skflows compress or decompress"),
    ],
)
def test_errors(folder, capsys, line, message):
    write_images(folder / "other", [(4, 4)] * 2)
    write_images(folder / "sizes", [(4, 4), (4, 6)])
    write_images(folder / "one", [(4, 4)])
    write_images(folder / "empty", [])
    for name in "deep", "broken":
        (folder / name).mkdir()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(folder / "deep" / "0.png")
    (folder / "broken" / "0.png").write_bytes(b"no image")
    frame = pd.read_csv("counts.csv", sep=";")
    frame[:1].to_csv("row.csv", index=False)
    frame.assign(fourth=1).to_csv("more.csv", index=False)
    frame.assign(first=frame["first"].astype(float).where(frame.index != 1, 0.5)).to_csv(
        "fractions.csv", index=False
    )
    for name in "texts.csv", "texts.WEBP":
        frame.assign(first="word").to_csv(name, index=False)
    other = FlowCompressor(NICEDensity(n_transforms=1, max_iter=1), lossless=True)
    other.fit(frame).save("other.skflows")
    before = {file.name for file in folder.iterdir()}
    assert run(f"{line} -o output") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("skflows: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert {file.name for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: ["../0.png", *names[1:]], "has '../0.png', which is no name of an image"),
        (lambda names: [*names[:-1], 5], "has 5, which is no name of an image"),
        (lambda names: [*names[:-1], names[0]], "has two images with the name '0.png'"),
        (lambda names: names[1:], "has 29 names for 30 images"),
        (lambda names: {"0.png": 0}, "names.json holds a dict, not a list"),
        (lambda names: "x" * 2000, "names.json has more than 1000 bytes"),
    ],
)
def test_wrong_names_of_images(folder, capsys, monkeypatch, change, message):
    monkeypatch.setattr("skflows.cli._compress.MOST_NAMES", 1000)
    with zipfile.ZipFile("images.skfc") as archive:
        names, rows = json.loads(archive.read("names.json")), archive.read("rows")
    with zipfile.ZipFile("wrong.skfc", "w") as archive:
        archive.writestr("names.json", json.dumps(change(names)), zipfile.ZIP_DEFLATED)
        archive.writestr("rows", rows)
    assert run("decompress wrong.skfc --model images.skflows -o restored") == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (folder / "restored").exists()


@pytest.mark.parametrize(
    ("entry", "method"), [("rows", zipfile.ZIP_DEFLATED), ("names.json", zipfile.ZIP_BZIP2)]
)
def test_entries_that_may_expand_are_not_read(folder, capsys, entry, method):
    """A few bytes could fill the memory."""
    with zipfile.ZipFile("images.skfc") as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile("bomb.skfc", "w") as archive:
        for info, data in entries:
            used = method if info.filename == entry else info.compress_type
            archive.writestr(info.filename, data, used)
    assert run("decompress bomb.skfc --model images.skflows -o restored") == 2
    assert f"{entry} has the compression method {method}, not " in capsys.readouterr().err


def test_damaged_names_of_images(folder, capsys):
    """zlib raises errors of its type."""
    data = bytearray((folder / "images.skfc").read_bytes())
    start = data.index(b"names.json") + len("names.json")
    data[start : start + 8] = b"\xff" * 8
    (folder / "damaged.skfc").write_bytes(data)
    assert run("decompress damaged.skfc --model images.skflows -o restored") == 2
    err = capsys.readouterr().err
    assert "damaged.skfc is not a compressed image file: Error -3 while decompressing" in err
