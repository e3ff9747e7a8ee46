"""data.csv, errors.csv, qc.html, and what the script says."""
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.files import progress, write_csv
from common.workers import Run
from preprocessing.conversion import ERROR_COLUMNS, Row
from preprocessing.dicom_series import Refusals, Study
from preprocessing.labels import MANIFEST_COLUMNS, QUALITY_COLUMNS, Labels
from preprocessing.qc_page import write_qc
from preprocessing.series_choice import format_table, list_series


def write_results(rows: Sequence[Row], errors: Sequence[Row], carried: Sequence[str], output: Path, run: Run) -> None:
    """Write data.csv, errors.csv and qc.html.

    Parameters
    ----------
    rows, errors : sequence of dict
        Of data.csv and errors.csv; without errors, errors.csv goes.
    carried : sequence of str
        Columns of --labels that go into data.csv.
    output : Path
        Folder, with images/ in it.
    run : Run
        Of `workers.processes`.
    """
    columns = [c for c in MANIFEST_COLUMNS if c not in ("target", "target_loc") or any(c in row for row in rows)]
    manifest = pd.DataFrame(rows, columns=[*columns, *carried, *QUALITY_COLUMNS])
    write_csv(manifest, output / "data.csv")
    if errors:
        write_csv(pd.DataFrame(errors, columns=ERROR_COLUMNS), output / "errors.csv")
    else:
        (output / "errors.csv").unlink(missing_ok=True)
    write_qc(manifest, output, output / "qc.html", run)


def print_results(rows: Sequence[Row], errors: Sequence[Row], labels: Labels | None, studies: dict[str, Study],
                  source: str, output: Path) -> None:
    """Say what was made, which labels have no study under `source`, and what was refused."""
    scans = {row["scan_id"]: row["warnings"] for row in rows}
    print(f"{len(scans)} studies -> {output / 'data.csv'} and {len(rows)} MIPs in {output / 'images'}")
    if warned := sum(map(bool, scans.values())):
        print(f"{warned} studies have warnings: column `warnings` of data.csv")
    missing = sorted(line for uid, line in labels.lines.items() if uid not in studies) if labels else []
    if labels and missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        print(f"{len(missing)} rows of {labels.path} have no study under {source}: line {shown}")
    print(f"MIPs and warnings to look at: {output / 'qc.html'}")
    for row in errors[:5]:
        print(f"refused: {row['study']}: {row['attribute']} {row['value']!r}: {row['reason']}; {row['remedy']}")
    if errors:
        print(f"{len(errors)} refused: {output / 'errors.csv'} (it names folders of --input: share it with care)")


def print_list(studies: dict[str, Study], refused: Refusals, run: Run) -> bool:
    """Print the series of every study, the one to use first, and what was refused. Returns whether anything was."""
    rows, errors = [], list(refused)
    with progress(run(list_series, sorted(studies.items()), 1), "reading headers", "study", len(studies)) as bar:
        for found, error in bar:
            rows += found
            errors += error
    print(format_table(rows))
    print(f"{len(studies)} studies, {len(rows)} PET series; nothing was written")
    for where, error in sorted(errors, key=lambda one: one[0]):
        print(f"refused: {where}: {error}")
    return bool(errors)
