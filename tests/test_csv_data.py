"""CSV lists as people have them: columns of parts, separators, labels with commas and spaces, one file a part."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from resnest.data.sources import EvaluationSplit, open_dataset, open_split
from resnest.errors import ResnestError


def _write(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        Image.new("RGB", (24, 24), (number * 7 % 256, number, 90)).save(root / name)


TEN = [f"{i}.jpg,{'dog' if i % 2 else 'cat'}" for i in range(8)]
SPLIT_WORDS = ("train", "Train ", "val", "TEST", "training", "valid", "testing", "train")
CSVS: dict[str, tuple[str, list[str], dict[str, int], str, tuple[str, ...]]] = {
    # first line, lines, images by part, what is said, classes
    "three parts": (
        "path,label,split",
        [f"{line},{part}" for line, part in zip(TEN, SPLIT_WORDS, strict=True)],
        {"train": 4, "val": 2, "test": 2}, "", ("cat", "dog"),
    ),
    "train and test": (
        "path,label,split", [f"{line},{'test' if i > 5 else 'train'}" for i, line in enumerate(TEN)],
        {"train": 6, "val": 2, "test": 2}, "(test is the validation part)", ("cat", "dog"),
    ),
    "a column called subset": (
        "path,label,subset", [f"{line},{'val' if i > 5 else 'train'}" for i, line in enumerate(TEN)],
        {"train": 6, "val": 2}, "parts are those of subset", ("cat", "dog"),
    ),
    "a column of any name": (
        "path,label,from", [f"{line},{'Validation' if i > 5 else 'TRAIN'}" for i, line in enumerate(TEN)],
        {"train": 6, "val": 2}, "parts are those of from", ("cat", "dog"),
    ),
    "data_split": (
        "path,label,source,data_split", [f"{line},web,{'val' if i > 5 else 'train'}" for i, line in enumerate(TEN)],
        {"train": 6, "val": 2}, "parts are those of data_split", ("cat", "dog"),
    ),
    "split before others": (
        "path,label,set,split", [f"{line},train,{'val' if i > 5 else 'train'}" for i, line in enumerate(TEN)],
        {"train": 6, "val": 2}, "the column set is not read", ("cat", "dog"),
    ),
    "a set of another kind": (
        "path,label,set", [f"{line},{'AB'[i > 5]}" for i, line in enumerate(TEN)], {"all": 8},
        "the column set is not read", ("cat", "dog"),
    ),
    "is_train": (
        "path,label,is_train", [f"{line},{int(i < 6)}" for i, line in enumerate(TEN)], {"train": 6, "val": 2},
        "parts are those of is_train", ("cat", "dog"),
    ),
    "is_training_image": (
        "path,label,is_training_image", [f"{line},{i < 6}" for i, line in enumerate(TEN)], {"train": 6, "val": 2},
        "parts are those of is_training_image", ("cat", "dog"),
    ),
    "three flags": (
        "path,label,is_train,is_val,is_test", [f"{line},{int(i < 4)},{int(4 <= i < 6)},{int(i > 5)}" for i, line in
        enumerate(TEN)], {"train": 4, "val": 2, "test": 2}, "parts are those of is_train, is_val, is_test",
        ("cat", "dog"),
    ),
    "flags of two parts": (
        "path,label,valid,test", [f"{line},{int(i == 5)},{int(i > 5)}" for i, line in enumerate(TEN)],
        {"train": 5, "val": 1, "test": 2}, "parts are those of valid, test", ("cat", "dog"),
    ),
    "no flags": (
        "path,label,is_train", [f"{line},{i / 7}" for i, line in enumerate(TEN)], {"all": 8},
        "the column is_train is not read", ("cat", "dog"),
    ),
    "is_valid": (
        "path,label,is_valid", [f"{line},{i > 5}" for i, line in enumerate(TEN)], {"train": 6, "val": 2},
        "parts are those of is_valid", ("cat", "dog"),
    ),
    "a column fold": (
        "path,label,fold", [f"{line},{i % 4}" for i, line in enumerate(TEN)], {"all": 8}, "the column fold is not read",
        ("cat", "dog"),
    ),
    "spaces around": ("path,label", [f" {line} " for line in TEN], {"all": 8}, "", ("cat", "dog")),
    "capitals": ("Path,Label", TEN, {"all": 8}, "", ("cat", "dog")),
    "semicolons": ("path;label", [line.replace(",", ";") for line in TEN], {"all": 8}, "", ("cat", "dog")),
    "repeated": ("path,label", [*TEN, TEN[0], f"./{TEN[1]}"], {"all": 8}, "2 lines repeat an image", ("cat", "dog")),
    "a line a label": ("path,labels", [*TEN, "0.jpg,dog"], {"all": 8}, "1 lines repeat an image", ("cat", "dog")),
    "commas": ("path,labels", [*TEN, '8.jpg,"cat, dog"'], {"all": 9}, "separated by commas", ("cat", "dog")),
    "a label with a comma": (
        "path,label", [*TEN, '8.jpg,"cat, dog"', '9.jpg,"cat, dog"'], {"all": 10},
        "'cat, dog' and the like are one label each: call the column labels if several", ("cat", "cat, dog", "dog"),
    ),
    "another label with a comma": (
        "path,label", [*TEN, '8.jpg, "crane, bird"', '9.jpg, "crane, bird"'], {"all": 10}, "",
        ("cat", "crane, bird", "dog"),
    ),
    "an empty field behind": ("path,label", [f"{line}, ," for line in TEN], {"all": 8}, "", ("cat", "dog")),
    "semicolons between": ("path,label", [*TEN, "8.jpg,cat;b"], {"all": 9}, "separated by ;", ("b", "cat", "dog")),
    "labels by spaces": ("path,labels", [*TEN, "8.jpg,cat dog"], {"all": 9}, "separated by spaces", ("cat", "dog")),
    "a label with a space": (
        "path,label", [*TEN, "8.jpg,cat dog", "9.jpg,cat dog"], {"all": 10},
        "'cat dog' and the like are one label each: call the column labels if several", ("cat", "cat dog", "dog"),
    ),
    "lists": (
        "path,labels", [*TEN, "8.jpg,\"['cat', 'dog']\"", "9.jpg,[]"], {"all": 10}, "lists in brackets", ("cat", "dog"),
    ),
    "names with spaces": (
        "path,label", ["0.jpg,red car", "1.jpg,blue car", "2.jpg,red bus", "3.jpg,red car"], {"all": 4},
        "'blue car' and the like are one label each", ("blue car", "red bus", "red car"),
    ),
    "names with commas": (
        "path,label", [f'{i}.jpg,"{("tench, Tinca tinca", "goldfish, Carassius auratus")[i % 2]}"' for i in range(4)],
        {"all": 4}, "", ("goldfish, Carassius auratus", "tench, Tinca tinca"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CSVS)
def test_csv_files(case: str, tmp_path: Path) -> None:
    head, rows, sizes, said, classes = CSVS[case]
    _write(tmp_path, [f"{i}.jpg" for i in range(10)])
    path = tmp_path / "all.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    opened: dict[str, EvaluationSplit] = {split: open_split(path, split) for split in sizes}
    assert {split: len(part.samples) for split, part in opened.items()} == sizes
    describe = open_dataset(path).describe()
    assert said in describe
    assert "(" not in describe.partition("classes")[2] or said
    assert open_dataset(path).train.class_names == classes or sum(sizes.values()) < 5
    assert all(part.samples.decode(0).size == (24, 24) for part in opened.values())


BAD_CSVS: dict[str, tuple[str, list[str], str]] = {
    "a mistyped part": ("path,label,split", [f"{TEN[0]},train", f"{TEN[1]},trian"], "line 3: 'trian' in the column"),
    "no part": ("path,label,split", [f"{TEN[0]},train", f"{TEN[1]},"], "line 3: the column split is empty"),
    "two parts": ("path,label,split", [f"{TEN[0]},train", f"{TEN[0]},val"], "in line 2 and in line 3 is in two parts"),
    "two labels": ("path,label", [*TEN, "0.jpg,dog"], "0.jpg in line 2 and in line 10 has two labels, cat and dog"),
    "one label or several": (
        "path,labels", ["0.jpg,clear primary", "1.jpg,clear water", "2.jpg,haze water", "3.jpg,haze primary"],
        "'clear primary' can be one label or several: put |",
    ),
    "a typo in set": ("path,label,set", [f"{TEN[0]},train", f"{TEN[1]},vall"], "line 3: 'vall' in the column set"),
    "a typo in any column": (
        "path,label,x", [f"{TEN[0]},train", f"{TEN[1]},val", f"{TEN[2]},"], "line 4: the column x is empty",
    ),
    "two flags": ("path,label,is_train,is_val", [f"{TEN[0]},1,1", f"{TEN[1]},0,1"], "line 2 is in two parts by is_tr"),
    "no flag": (
        "path,label,train,val,test", [f"{TEN[0]},1,0,0", f"{TEN[1]},0,0,0"], "line 3 is in no part by train, val, test",
    ),
    "one part": ("path,label,is_train", [f"{line},1" for line in TEN], "the column of parts must hold both"),
    "more labels than columns": ("path,labels", ["0.jpg,cat,dog"], "line 2 has 3 fields, and the first line 2 columns"),
    "a comma in a label": ("path,label", [TEN[0], "1.jpg,crane, bird"], "line 3 has 3 fields"),
    "a comma in a path": ("path,label", [TEN[0], "img/a,1.jpg,x"], "line 3 has 3 fields"),
    "a semicolon in a label": ("path;labels", ["0.jpg;cat;dog"], "a field with a semicolon in it needs"),
    "an open quotation mark": ("path,label", [TEN[0], '1.jpg,"dog', *TEN[2:]], "cannot be read as CSV: unexpected end"),
    "one that another closes": ("path,label", ['0.jpg,"cat', '1.jpg,dog"', *TEN[2:]], "line 3: the label .* line end"),
    "a column twice": ("path,label,Label", ["0.jpg,cat,dog"], "has two columns called label"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CSVS)
def test_csv_files_that_can_be_read_in_two_ways(case: str, tmp_path: Path) -> None:
    head, rows, message = BAD_CSVS[case]
    (tmp_path / "all.csv").write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(ResnestError, match=message.replace("|", r"\|")):
        open_dataset(tmp_path / "all.csv")


@pytest.mark.parametrize("names", ["train val", "train test", "train val test"])
def test_one_file_a_part(names: str, tmp_path: Path) -> None:
    """An image in two of them is an error, as in two parts of one file."""
    _write(tmp_path, [f"{i}.jpg" for i in range(8)])
    parts = names.split()
    for number, name in enumerate(parts):
        lines = TEN[number * 2 : number * 2 + 2]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    assert ("(test.csv is the validation part)" in open_dataset(tmp_path).describe()) == (names == "train test")
    with (tmp_path / f"{parts[-1]}.csv").open("a") as file:
        file.write(f"./{TEN[0]}\n")
    with pytest.raises(
        ResnestError, match=rf"0.jpg is in two parts, .*train.csv and .*{parts[-1]}.csv: leave it in one"
    ):
        open_dataset(tmp_path)


def test_a_part_in_a_file_of_one_part(tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text(f"path,label,split\n{TEN[0]},{name}\n")
    with pytest.raises(ResnestError, match=r"train.csv has parts in a column of its own: give it as the data itself"):
        open_dataset(tmp_path)
