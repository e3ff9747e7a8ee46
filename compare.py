"""Compare two or more ensembles on the same scans: AUC, errors at a threshold, reclassification, with paired tests.

python compare.py results/ensemble_avg.csv results/ensemble_max.csv --output results
python compare.py a/ensemble_avg.csv b/ensemble_avg.csv c/ensemble_avg.csv --threshold youden --output comparison

Reads scan_id, target and ensemble_prob (or probs: one model's predictions, a scan's views averaged), joined by
scan_id. Every pair of files is compared; a difference is the first less the second. Writes compare.json, compare.csv
and compare.html, a table of one page. Bootstrap by patient where every file has patient_id, else by scan.
"""
import itertools
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script
from common.files import InputError, progress, read_csv, write_csv, write_json
from common.manifest import SYNTHETIC

TESTS = ("delong", "bootstrap", "mcnemar", "accuracy", "nri")  # each adjusted over the pairs by itself


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input")
    group.add_argument("files", nargs="+", type=Path, metavar="CSV", help="two or more ensemble_avg.csv, "
                       "ensemble_max.csv or pred_splitS_runR.csv")
    group.add_argument("--names", nargs="+", metavar="NAME", help="of the files (default: from their paths)")
    group.add_argument("--set", default="test", choices=("train", "val", "test", "all"),
                       help="rows to use of files that have a column `set`")
    group = parser.add_argument_group("statistics")
    group.add_argument("--threshold", nargs="+", default=["0.5"], metavar="T",
                       help="positive at this probability or more; one for all files or one for each; or the name of "
                            "one that aggregate.py derived: youden, sensitivity95, specificity95 (default: 0.5)")
    group.add_argument("--resamples", type=positive_int, default=2000, metavar="N", help="of the bootstrap")
    group.add_argument("--seed", type=natural_int, default=0, help="of the bootstrap")
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path("results"), help="folder to write to")
    return parser


def main(args):
    if len(args.files) < 2:
        raise InputError(f"{args.files[0]}: one file; give two or more to compare")
    names = file_names(args)
    thresholds = args.threshold * len(args.files) if len(args.threshold) == 1 else args.threshold
    if len(thresholds) != len(args.files):
        raise InputError(f"--threshold: {len(thresholds)} values for {len(args.files)} files; give one, or one each")
    tables = [read_scores(path, threshold, args.set) for path, threshold in zip(args.files, thresholds, strict=True)]
    scans, warnings = join(names, tables)
    result = describe(args, names, thresholds, tables, scans, warnings)
    result |= measure(args, names, scans)
    for line in result["warnings"]:
        print(f"warning: {line}")
    for line in result["notices"]:
        print(line)
    write_outputs(args.output, names, result)


def file_names(args):
    """A different name per file: --names, else the stem, with as many folders before it as tell the files apart."""
    if args.names:
        if len(args.names) != len(args.files) or len(set(args.names)) < len(args.names):
            raise InputError(f"--names {' '.join(args.names)}: give {len(args.files)} different ones, as many as files")
        return args.names
    paths = [path.resolve() for path in args.files]
    if len(set(paths)) < len(paths):
        raise InputError(f"{args.files[0].name}: a file is given twice; give different files")
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join((*path.parts[-depth:-1], path.stem)) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in args.files]  # differ in their endings only


def read_scores(path, threshold, wanted):
    """One file -> DataFrame by scan_id: target (1, 0, NaN), score, called, patient_id; `notices` in its attrs."""
    from evaluation import ensemble

    def optional(name):
        return name in ("scan_id", "target", "ensemble_prob", "probs", "patient_id", "set", "notice", "synthetic",
                        "view", "filename", "series_description", f"pred_{threshold}")

    rows = read_csv(path, ("scan_id", "target"), optional)
    single_model = "ensemble_prob" not in rows
    if single_model and "probs" not in rows:
        raise InputError(f"{path}: has neither ensemble_prob nor probs; give what aggregate.py or predict.py wrote")
    if "set" in rows:
        rows = rows[rows["set"] == wanted]
        if rows.empty:
            raise InputError(f"{path}: has no row with set {wanted}; give --set")
    if not single_model:
        rows = rows.drop(columns="probs", errors="ignore").rename(columns={"ensemble_prob": "probs"})
        for row in rows.index[rows.duplicated("scan_id")][:1]:
            raise InputError(f"{path}, line {row + 2}: scan {rows.at[row, 'scan_id']} is there twice; remove one")
    rows = ensemble.check_rows(rows, path)
    model = {"rows": rows, "file": str(path)}
    scans, _ = ensemble.join_scans([model])
    scans["score"] = ensemble.score_models([model], scans, "avg")["probs_0"]
    scans["called"] = call_scans(path, threshold, rows, scans)
    notices = [SYNTHETIC] if scans["synthetic"].any() else []
    if "notice" in rows:
        notices += [text for text in rows["notice"].unique() if text]
    scans.attrs["notices"] = notices
    return scans


def call_scans(path, threshold, rows, scans):
    """Which scans are called positive: at a number, or as the column pred_NAME of aggregate.py says."""
    from evaluation import ensemble

    value = ensemble.number(threshold)
    if value == value:
        if not 0 <= value <= 1:
            raise InputError(f"--threshold {threshold}: a probability lies in 0..1")
        return scans["score"] >= value
    column = f"pred_{threshold}"
    if column not in rows:
        raise InputError(f"--threshold {threshold}: {path} has no column {column}; give a number, or a name of a "
                         "threshold that aggregate.py derived from validation predictions")
    return rows.set_index("scan_id")[column].reindex(scans.index) == "1"


def join(names, tables):
    """The scans that every file has with a target: (DataFrame with target, patient_id where all have it, score and
    called per name; warnings). InputError where targets or patients conflict, or nothing is common."""
    import pandas as pd

    from evaluation import ensemble

    for column in ("target", "patient_id"):
        rows = pd.concat([table[[column]].assign(file=name) for name, table in zip(names, tables, strict=True)
                          if column in table]) if any(column in table for table in tables) else None
        if rows is not None:
            rows = rows.dropna(subset=column).reset_index(names="scan_id")
            if column == "patient_id":  # "  scan": unknown
                rows = rows[~rows[column].str.startswith("  ")]
            ensemble.refuse_conflicts(rows, column)
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    everything = set().union(*(table.index for table in tables))
    warnings = [f"{name} lacks {len(everything) - len(table)} of {len(everything)} scans, which are left out: "
                f"{ensemble.some(sorted(everything - set(table.index)))}"
                for name, table in zip(names, tables, strict=True) if len(table) < len(everything)]
    common = common.sort_values()
    target = pd.concat([table["target"].reindex(common) for table in tables], axis=1).bfill(axis=1).iloc[:, 0]
    if target.isna().any():
        warnings.append(f"{target.isna().sum()} of {len(common)} common scans have no target and are left out")
    common = common[target.notna()]
    if common.empty:
        raise InputError(f"{' and '.join(names)}: no scan with a target is in every file; were they made from the same "
                         "scans?")
    scans = pd.DataFrame({"target": target[common].astype(int)})
    if all("patient_id" in table for table in tables):
        scans["patient_id"] = tables[0]["patient_id"].reindex(common)
    else:
        lacking = [name for name, table in zip(names, tables, strict=True) if "patient_id" not in table]
        warnings.append(f"no patient_id in {ensemble.some(lacking)}: scans are taken as independent, which is too "
                        "certain where a patient has several")
    for name, table in zip(names, tables, strict=True):
        for column in ("score", "called"):
            scans[f"{column} {name}"] = table[column].reindex(common)
    return scans, warnings


def describe(args, names, thresholds, tables, scans, warnings):
    """The part of compare.json that says what was compared."""
    by_patient = "patient_id" in scans
    if by_patient and scans["patient_id"].nunique() < len(scans):
        warnings.append("some patients have several scans: McNemar's p takes scans as independent; the bootstrap's "
                        "accuracy and NRI differences do not")
    return {"ensembles": [{"name": name, "file": str(path), "threshold": threshold} for name, path, threshold in
                          zip(names, args.files, thresholds, strict=True)],
            "n_scans": len(scans), "n_positive": int(scans["target"].sum()),
            "n_patients": int(scans["patient_id"].nunique()) if by_patient else None,
            "independent_unit": "patient" if by_patient else "scan", "confidence": 0.95, "resamples": args.resamples,
            "seed": args.seed, "warnings": warnings,
            "notices": list(dict.fromkeys(notice for table in tables for notice in table.attrs["notices"]))}


def measure(args, names, scans):
    """The AUC of each ensemble, the tests of each pair, Holm's adjustment over the pairs."""
    from evaluation import ensemble, paired_tests
    from evaluation.metrics import auc_estimate

    y, groups = scans["target"].to_numpy(), ensemble.patients(scans)
    aucs = {name: auc_estimate(y, scans[f"score {name}"].to_numpy(), groups) for name in names}
    pairs = []
    with progress(list(itertools.combinations(names, 2)), "comparing", "pair") as bar:
        for a, b in bar:
            score_a, score_b = (scans[f"score {name}"].to_numpy() for name in (a, b))
            called_a, called_b = (scans[f"called {name}"].to_numpy(dtype=bool) for name in (a, b))
            drawn = (groups, args.resamples, args.seed)
            differences = paired_tests.bootstrap_call_differences(y, called_a, called_b, *drawn)
            nri = paired_tests.net_reclassification(y, called_a, called_b)
            pairs.append({"a": a, "b": b, "delong": paired_tests.delong_test(y, score_a, score_b, groups),
                          "bootstrap": paired_tests.bootstrap_auc_difference(y, score_a, score_b, *drawn),
                          "mcnemar": paired_tests.mcnemar_exact(y, called_a, called_b),
                          "accuracy": differences["accuracy"],
                          "nri": differences["nri"] | {"asymptotic": nri}})
    for test in TESTS:
        for pair, adjusted in zip(pairs, paired_tests.holm([pair[test]["p"] for pair in pairs]), strict=True):
            pair[test]["p_holm"] = adjusted
    return {"auc": aucs, "pairs": pairs}


# ---------------------------------------------------------------- writing

def test_rows(pair):
    """The tests of a pair for tables: dicts of test, difference, ci_low, ci_high, p, p_holm, detail."""
    def row(what, test, detail):
        entry = pair[test]
        detail = "; ".join(filter(None, (detail, entry.get("reason"))))
        return {"test": what} | {key: entry[key] for key in ("difference", "ci_low", "ci_high", "p", "p_holm")
                                 if key in entry} | {"detail": detail}

    z, counts, nri = pair["delong"]["z"], pair["mcnemar"], pair["nri"]["asymptotic"]
    parts = "" if nri["nri"] is None else (f"Deauville 4–5 {nri['positives']:+.3f} ({nri['positives_up']} up, "
                                           f"{nri['positives_down']} down), Deauville 1–3 {nri['negatives']:+.3f} "
                                           f"({nri['negatives_down']} down, {nri['negatives_up']} up)")
    return [row("AUC, DeLong", "delong", "" if z is None else f"z = {z:.2f}"), row("AUC, bootstrap", "bootstrap", ""),
            row("Errors, exact McNemar", "mcnemar", f"only the first right: {counts['only_a_right']}, only the "
                f"second: {counts['only_b_right']}"), row("Accuracy, bootstrap", "accuracy", ""),
            row("Net reclassification, bootstrap", "nri", parts)]


def write_outputs(folder, names, result):
    """compare.json, compare.csv, compare.html; the table on the terminal."""
    import pandas as pd

    from evaluation import report
    from evaluation.estimates import difference_text, long_text, p_text
    pairs = {(pair["a"], pair["b"]): test_rows(pair) for pair in result["pairs"]}
    rows = [{"first": a, "second": b} | row for (a, b), tests in pairs.items() for row in tests]
    table = pd.DataFrame(rows, columns=["first", "second", "test", "difference", "ci_low", "ci_high", "p", "p_holm",
                                        "detail"])
    if result["notices"]:
        table["notice"] = " ".join(result["notices"])
    print(f"{result['n_scans']} scans, {result['n_positive']} with target 1; intervals and bootstrap by "
          f"{result['independent_unit']}")
    for name in names:
        print(f"{name}: AUC {long_text(result['auc'][name])}")
    for (a, b), tests in pairs.items():
        print(f"\n{a} less {b}\n{'':<34}{'difference (95 % CI)':<30}{'p':<9}p (Holm)")
        for row in tests:
            print(f"  {row['test']:<32}{difference_text(row):<30}{p_text(row['p']):<9}{p_text(row['p_holm'])}")
    write_json(result, folder / "compare.json")
    write_csv(table, folder / "compare.csv")
    report.write_comparison(folder / "compare.html", result, pairs)
    print(f"\nwrote {folder}/: compare.json, compare.csv, compare.html")


if __name__ == "__main__":
    run_script(get_args_parser, main)
