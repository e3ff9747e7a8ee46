"""What the tests of lesion masks share."""

import pandas as pd
from conftest import call

import prepro_script


def prepro(folder, *args):
    folders = "--input", folder / "in", "--output", folder / "out"
    code = call(prepro_script, *folders, "--keep_ids", "--workers", 1, *args)
    return code, pd.read_csv(folder / "out" / "data.csv", keep_default_na=False)
