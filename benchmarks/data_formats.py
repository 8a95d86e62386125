"""What a format of data costs: one data set as zip, tar shards, parquet; opened, and read in a shuffled order.

    python benchmarks/data_formats.py ../shared/data/imagenette128     # writes results/data-formats.csv

The zip's training part is packed anew into shards of 1,000 images (the last one shorter) and into parquet with 100
images a row group, as the hub has them; both must hold the same bytes, labels and class names in the same order.
`epoch` reads every image's bytes once in shuffled order through two DataLoader workers, `images` reads 500 in this
process. `row groups` reads parquet in place with four groups kept in memory, which `read_parquet` does not do.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import DataLoader

from resnest.bench.table import environment, head
from resnest.data.parquet import read_parquet
from resnest.data.readers import read_zip
from resnest.data.samples import LabelledSamples
from resnest.data.shards import read_shards

SHARD, GROUP, FEW = 1000, 100, 500
Row = tuple[str, str, int, float]


def write_shards(samples: LabelledSamples, folder: Path) -> list[Path]:
    """`KEY.jpg` and `KEY.cls`."""
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps(samples.class_names))
    for start in range(0, len(samples), SHARD):
        with tarfile.open(folder / f"train-{start // SHARD:06d}.tar", "w") as archive:
            for index in range(start, min(start + SHARD, len(samples))):
                label = str(samples.labels[index]).encode()
                for suffix, content in (("jpg", samples.store.read(samples.keys[index])), ("cls", label)):
                    info = tarfile.TarInfo(f"{index:06d}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return sorted(folder.glob("*.tar"))


def write_parquet(samples: LabelledSamples, path: Path, group: int) -> Path:
    contents = [{"bytes": samples.store.read(key), "path": Path(key).name} for key in samples.keys]
    images = pa.array(contents)
    notes = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(samples.class_names)}}
    metadata = {"huggingface": json.dumps({"info": {"features": notes}})}
    schema = pa.schema([("image", images.type), ("label", pa.int64())], metadata=metadata)
    pq.write_table(pa.table([images, pa.array(samples.labels)], schema=schema), path, row_group_size=group)
    return path


def in_place(path: Path, group: int) -> Callable[[int], bytes]:
    """One image of a parquet file by reading its row group."""
    table = pq.ParquetFile(path, memory_map=True)

    @lru_cache(maxsize=4)
    def read_group(number: int) -> Any:
        return table.read_row_group(number, columns=["image.bytes"], use_threads=False).column("image")

    return lambda index: read_group(index // group)[index % group]["bytes"].as_py()


def by_key(samples: LabelledSamples) -> Callable[[int], bytes]:
    return lambda index: samples.store.read(samples.keys[index])


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Sizes:
    """A data set for DataLoader whose items are numbers of bytes."""

    def __init__(self, samples: LabelledSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        return len(self.samples.store.read(self.samples.keys[index]))


def epoch(samples: LabelledSamples, seed: int) -> int:
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    batches = [order[start : start + 64] for start in range(0, len(order), 64)]
    loader: DataLoader[Any] = DataLoader(Sizes(samples), batch_sampler=batches, num_workers=2)  # type: ignore[arg-type]
    return sum(int(batch.sum()) for batch in loader)


def read_each(read: Callable[[int], object], order: list[int]) -> None:
    for index in order:
        read(index)


def check_equal(samples: LabelledSamples, other: LabelledSamples) -> None:
    assert other.class_names == samples.class_names
    assert (other.labels == samples.labels).all()
    pairs = zip(samples.keys, other.keys, strict=True)
    assert all(samples.store.read(key) == other.store.read(theirs) for key, theirs in pairs)


def measure(source: Path, rounds: int, folder: Path) -> list[Row]:
    os.environ["RESNEST_HOME"] = str(folder / "home")
    opened = read_zip(source / "train.zip")
    shards, table = write_shards(opened, folder / "shards"), write_parquet(opened, folder / "train.parquet", GROUP)
    large = write_parquet(opened, folder / "large.parquet", 10 * GROUP)
    openings: dict[str, Callable[[], LabelledSamples]] = {
        "zip": lambda: read_zip(source / "train.zip"),
        "tar": lambda: read_shards(shards),
        "parquet": lambda: read_parquet([table]),
    }
    rows: list[Row] = [("open first", name, 0, timed(read)) for name, read in openings.items()]
    data = {name: read() for name, read in openings.items()}
    for other in data.values():
        check_equal(opened, other)
    readers = {name: by_key(samples) for name, samples in data.items()}
    readers[f"row groups of {GROUP}"] = in_place(table, GROUP)
    readers[f"row groups of {10 * GROUP}"] = in_place(large, 10 * GROUP)
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(len(opened))[:FEW].tolist()
        rows += [("open again", name, number, timed(read)) for name, read in openings.items()]
        for name, read in readers.items():
            seconds = timed(partial(read_each, read, order)) / FEW
            rows.append(("images", name, number, seconds))
        rows += [("epoch", name, number, timed(partial(epoch, samples, number))) for name, samples in data.items()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/data-formats.csv"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.data, arguments.rounds, Path(folder))
    with arguments.out.open("w", newline="") as file:
        notes = [
            f"data: {arguments.data.name}, training part, files in the page cache",
            "seconds: of opening, of one image (images), of all images with two workers (epoch)",
        ]
        file.write(head(environment(packages=("torch", "pyarrow"), notes=notes)))
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("what", "format", "repetition", "seconds"))
        table.writerows((what, name, number, f"{seconds:.7f}") for what, name, number, seconds in rows)
    for what, name in dict.fromkeys((what, name) for what, name, *_ in rows):
        times = [seconds for w, n, _, seconds in rows if (w, n) == (what, name)]
        print(f"{what:12} {name:24} {median(times) * 1e3:12.3f} ms")


if __name__ == "__main__":
    main()
