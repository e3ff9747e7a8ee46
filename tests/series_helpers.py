"""What the tests of series and of a repeated prepro_script.py share: the program, archives, the tables."""
import shutil
import zipfile

import pandas as pd
from conftest import call

import prepro_script


def prepro(folder, *args):
    return call(prepro_script, "--input", folder / "dicom", "--output", folder / "out", "--workers", 1, "--keep_ids",
                *args)


def table(folder, name="data.csv"):
    return pd.read_csv(folder / "out" / name, keep_default_na=False)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(folder, archive, compression=zipfile.ZIP_DEFLATED, name="{}"):
    """The files of a folder as an archive, which takes its place."""
    with zipfile.ZipFile(archive, "w", compression) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, name.format(path.relative_to(folder)))
    shutil.rmtree(folder)
    return archive
