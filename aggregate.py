"""Average the predictions of several models into one score per scan, and measure it.

python aggregate.py --dir results --output results             # every pred_splitS_runR.csv in results
python aggregate.py --dir results --output results --top 10    # the ten best by best_run.csv

LARS-avg: per model the mean over a scan's views; LARS-max: their maximum; then the mean over the models.
Writes ensemble_avg.csv and ensemble_max.csv, and, where the scans have targets, metrics.json, roc.png and roc.svg.
LARS's own files (scan_id, target, probs; no column `set`: all test) are read too.
"""
import re
from pathlib import Path

from arguments import Parser, positive_int, run_script
from files import InputError, progress, read_csv, replace_file, write_csv, write_json

THRESHOLD = 0.5
PRED_FILE = re.compile(r"pred_split(\d+)_run(\d+)\.csv")
COLUMNS = ("scan_id", "target", "probs", "set", "view", "filename", "patient_id", "synthetic", "series_description")
ENSEMBLES = {"avg": "LARS-avg", "max": "LARS-max"}
METRICS = ("auc", "accuracy", "sensitivity", "specificity")
SYNTHETIC = "The cohort is SYNTHETIC: these numbers say nothing about patients."


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input")
    group.add_argument("--dir", type=Path, default=Path("results"), help="folder of predict.py's pred_splitS_runR.csv")
    group.add_argument("--set", choices=("train", "val", "test", "all"), help="rows to use, by the column `set` of "
                       "those files (default: test; all where the files hold nothing but that)")
    group.add_argument("--best_run", type=Path, metavar="FILE", help="ranking of the models by find_best_model.py "
                       "(default: best_run.csv in --dir, where it is there)")
    group.add_argument("--top", type=positive_int, metavar="K", help="use the K best models of that ranking "
                       "(default: every model in --dir)")
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path("results"), help="folder to write to")
    return parser


def main(args):
    models, warnings = find_models(args)
    wanted = read_models(models, args)
    scans, more = join_scans(models)
    warnings += more
    warnings += set_warnings(wanted, scans)
    ensembles = {name: combine(models, scans, name) for name in ENSEMBLES}
    metrics = measure(models, scans, ensembles, wanted, warnings)

    print(f"{wanted} set: {len(scans)} scans, {(scans['target'] == 1).sum()} with target 1, "
          f"{(scans['target'] == 0).sum()} with target 0; {len(models)} models")
    for line in metrics["warnings"]:
        print(f"warning: {line}")
    written = write_outputs(args.output, ensembles, metrics)
    if scans["target"].notna().any():
        print_table(metrics)
    if metrics["synthetic"]:
        print(SYNTHETIC)
    print("wrote " + ", ".join(str(path) for path in written))


# ---------------------------------------------------------------- models

def find_models(args):
    """(models, warnings): the prediction files to use, best first, as dicts file, split, run, rank (None: unranked)."""
    models = [{"path": path, "file": path.name, "split": int(match[1]), "run": int(match[2]), "rank": None}
              for path in sorted(args.dir.glob("pred_split*_run*.csv")) if (match := PRED_FILE.fullmatch(path.name))]
    if not models:
        raise InputError(f"{args.dir}: holds no pred_splitS_runR.csv; run predict.py first, or mend --dir")
    best_run = args.best_run or args.dir / "best_run.csv"
    if not args.best_run and not best_run.is_file():
        if args.top:
            raise InputError(f"--top {args.top}: there is no {best_run} to rank the models by; copy it there, or give "
                             "--best_run FILE (find_best_model.py writes it)")
        return sorted(models, key=lambda model: (model["split"], model["run"])), []
    ranks = read_ranks(best_run)
    for model in models:
        model["rank"] = ranks.get((model["split"], model["run"]))
    models.sort(key=lambda model: (model["rank"] is None, model["rank"], model["split"], model["run"]))
    ranked = [model for model in models if model["rank"] is not None]
    if args.top:
        return top_models(ranked, ranks, args, best_run), []
    unranked = [model["file"] for model in models[len(ranked):]]
    return models, [f"{len(unranked)} prediction files are not in {best_run.name} and were used too: "
                    f"{_some(unranked)}"] if unranked else []


def top_models(ranked, ranks, args, best_run):
    """The models with the K best ranks; InputError where there are fewer, or the prediction of one is missing."""
    if args.top > len(ranked):
        raise InputError(f"--top {args.top}: of the models that {best_run} ranks, {args.dir} holds the predictions of "
                         f"{len(ranked)}; lower --top, or run predict.py with more of them")
    have = {(model["split"], model["run"]) for model in ranked}
    for split, run in sorted(ranks, key=ranks.get)[:args.top]:
        if (split, run) not in have:
            raise InputError(f"--top {args.top}: {args.dir}/pred_split{split}_run{run}.csv is missing, rank "
                             f"{ranks[split, run]} in {best_run}; run predict.py for split {split}")
    return ranked[:args.top]


def read_ranks(path):
    """best_run.csv -> {(split, run): rank}, ranks 1, 2, 3, ... each once."""
    table = read_csv(path, ("split", "run", "rank"))
    try:
        ranks = {(int(row.split), int(row.run)): int(row.rank) for row in table.itertuples()}
    except ValueError as error:
        raise InputError(f"{path}: {error}; split, run and rank must be integers") from None
    if sorted(ranks.values()) != list(range(1, len(table) + 1)):
        raise InputError(f"{path}: its ranks must be 1 to {len(table)}, each once; run find_best_model.py again")
    return ranks


# ---------------------------------------------------------------- reading

def read_models(models, args):
    """Add to every model its `rows` of the set that --set asks for, checked; return the name of that set."""
    sets = set()
    with progress(models, "reading", "model") as bar:
        for model in bar:
            table = read_csv(model["path"], ("scan_id", "probs"), lambda name: name in COLUMNS)
            if "set" not in table:
                table["set"] = "test"
            model["rows"] = table
            sets |= set(table["set"])
    wanted = args.set or ("all" if sets == {"all"} else "test")
    for model in models:
        rows = model["rows"][model["rows"]["set"] == wanted]
        if rows.empty:
            raise InputError(f"{model['path']}: has no row with set {wanted}; the files hold "
                             f"{_some(sorted(sets)) or 'no rows'}: give --set, or run predict.py --set {wanted}")
        model["rows"] = check_rows(rows, model["path"])
    return wanted


def check_rows(rows, path):
    """Rows of one file as scan_id, target (1, 0 or NaN), probs and what else there is; InputError naming the line."""
    import numpy as np

    for row in rows.index[rows["scan_id"] == ""][:1]:
        raise InputError(f"{path}, line {row + 2}: scan_id is empty")
    probs = np.array([_number(text) for text in rows["probs"]])
    for row in rows.index[~((probs >= 0) & (probs <= 1))][:1]:
        raise InputError(f"{path}, line {row + 2} (scan {rows.at[row, 'scan_id']}): probs {rows.at[row, 'probs']!r}; "
                         "it must lie in 0..1; run predict.py again")
    text = rows["target"].str.strip() if "target" in rows else rows["scan_id"].map(lambda _: "")
    target = np.array([_number(value) for value in text])
    for row in rows.index[(text != "") & ~np.isin(target, (0, 1))][:1]:
        raise InputError(f"{path}, line {row + 2} (scan {rows.at[row, 'scan_id']}): target {text[row]!r}; it must be "
                         "0, 1 or empty")
    for column in ("filename", "view"):
        if column in rows:
            for row in rows.index[rows.duplicated(["scan_id", column]) & (rows[column] != "")][:1]:
                raise InputError(f"{path}, line {row + 2}: scan {rows.at[row, 'scan_id']} has {column} "
                                 f"{rows.at[row, column]} twice; remove one of the two rows")
    return rows.assign(probs=probs, target=target)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return float("nan")


# ---------------------------------------------------------------- joining

def join_scans(models):
    """One row per scan of any model, sorted by scan_id: (DataFrame with target, n_models, n_views, synthetic, and
    patient_id where the files have it; warnings). InputError where the targets of a scan conflict."""
    import pandas as pd

    rows = pd.concat([model["rows"].assign(file=model["file"]) for model in models], ignore_index=True)
    labelled = rows.dropna(subset="target")
    conflicts = labelled.groupby("scan_id")["target"].nunique().loc[lambda count: count > 1]
    if len(conflicts):
        mine = labelled[labelled["scan_id"] == conflicts.index[0]].groupby("target")["file"].unique()
        raise InputError(f"scan {conflicts.index[0]} has target 0 in {_some(sorted(mine[0]))} and target 1 in "
                         f"{_some(sorted(mine[1]))}; mend the manifest and predict again")
    by_scan = rows.groupby("scan_id")
    views = rows.groupby(["scan_id", "file"]).size().groupby("scan_id")
    scans = pd.DataFrame({"target": by_scan["target"].first(), "n_models": by_scan["file"].nunique(),
                          "n_views": views.max()})
    scans["synthetic"] = _is_synthetic(rows).groupby(rows["scan_id"]).any()
    if "patient_id" in rows:
        scans["patient_id"] = by_scan["patient_id"].first()
    warnings = []

    def warn(which, text):
        if which.any():
            warnings.append(f"{which.sum()} of {len(scans)} scans {text}: {_some(scans.index[which])}")

    warn(scans["n_models"] < len(models), "lack some model's prediction; their mean is over the models that have one")
    warn(views.nunique() > 1, "have more views in one model's file than in another's")
    warn(scans["n_views"] == 1, "have one view only")
    if not rows.columns.intersection(["filename", "view"]).size:
        warn(scans["n_views"] > 2, "have more than two rows; without column filename or view they may be duplicates")
    if scans["target"].notna().any():
        warn(scans["target"].isna(), "have no target and are left out of the metrics")
    return scans, warnings


def _is_synthetic(rows):
    marked = rows["scan_id"].map(lambda _: False)
    if "synthetic" in rows:
        marked |= rows["synthetic"].fillna("").str.strip().str.lower().isin(("1", "1.0", "true", "yes"))
    if "series_description" in rows:
        marked |= rows["series_description"].fillna("").str.contains("SYNTHETIC")
    return marked


def set_warnings(wanted, scans):
    """What a reader of the numbers must know about the set they come from."""
    if scans["target"].isna().all():
        return []
    warnings = []
    if wanted == "all":
        warnings.append("set all: these numbers hold for new patients only if no model was trained or chosen on these "
                        "scans")
    elif wanted != "test":
        done = "trained" if wanted == "train" else "chosen"
        warnings.append(f"set {wanted}: the models were {done} on these scans; the numbers are OPTIMISTIC")
    if "patient_id" in scans:
        per_patient = scans.loc[scans["patient_id"].fillna("") != "", "patient_id"].value_counts()
        if (per_patient > 1).any():
            warnings.append(f"{(per_patient > 1).sum()} patients have several scans; the intervals take scans as "
                            "independent and are somewhat too narrow")
    return warnings


def combine(models, scans, ensemble):
    """The table of ensemble_avg.csv or ensemble_max.csv; adds every model's own score per scan to it as `ensemble`."""
    import pandas as pd

    over_views = {"avg": "mean", "max": "max"}[ensemble]
    for model in models:  # sorted: a sum of floats depends on its order
        model[ensemble] = model["rows"].sort_values(["scan_id", "probs"]).groupby("scan_id")["probs"].agg(over_views)
    probs = pd.DataFrame({f"probs_{k}": model[ensemble] for k, model in enumerate(models)}, index=scans.index)
    mean = probs.mean(axis=1)
    table = probs.assign(ensemble_prob=mean, pred_label=(mean >= THRESHOLD).astype(int))
    table.insert(0, "target", scans["target"].astype("Int64"))
    return table.reset_index(names="scan_id")


# ---------------------------------------------------------------- measuring and writing

def measure(models, scans, ensembles, wanted, warnings):
    """What metrics.json holds. A number that one class cannot give is null with the reason; no targets, no metrics."""
    from metrics import CONFIDENCE, auc_estimate, evaluate

    synthetic = bool(scans["synthetic"].any())
    result = {"set": wanted, "synthetic": synthetic, "notice": SYNTHETIC if synthetic else None, "n_scans": len(scans),
              "confidence": CONFIDENCE, "independent_unit": "scan", "warnings": list(warnings)}
    lacking = scans.index[scans["n_models"] < len(models)]
    result["scans_lacking_a_model"] = {scan: int(scans.at[scan, "n_models"]) for scan in lacking}
    target = scans["target"].dropna()
    if target.empty:
        result["warnings"].append("no scan has a target: no metrics, no figure")
    else:
        for name, table in ensembles.items():
            labelled = table[table["target"].notna().to_numpy()]
            result[name] = evaluate(labelled["target"].astype(int), labelled["ensemble_prob"], THRESHOLD)
        if result["avg"]["auc"]["value"] is None:
            result["warnings"].append(f"no AUC and no figure: {result['avg']['auc']['reason']}")
    result["models"] = []
    for model in models:
        entry = {key: model[key] for key in ("file", "split", "run", "rank")} | {"n_scans": len(model["avg"])}
        if len(target):
            for name in ENSEMBLES:
                mine = model[name].loc[model[name].index.isin(target.index)]
                entry[f"auc_{name}"] = auc_estimate(target[mine.index], mine)
        result["models"].append(entry)
    return result


def write_outputs(folder, ensembles, metrics):
    """Write what there is; return the paths. Metrics or figures of an earlier call that this one has none of go."""
    paths = [folder / f"ensemble_{name}.csv" for name in ENSEMBLES]
    for path, table in zip(paths, ensembles.values(), strict=True):
        write_csv(table, path)
    if "avg" in metrics:
        write_json(metrics, folder / "metrics.json")
        paths.append(folder / "metrics.json")
    if "avg" in metrics and metrics["avg"]["auc"]["value"] is not None:
        paths += draw_roc(folder, ensembles, metrics)
    for name in ("metrics.json", "roc.png", "roc.svg"):
        if (folder / name) not in paths and (folder / name).exists():
            (folder / name).unlink()
            print(f"removed {folder / name}: it belonged to earlier predictions")
    return paths


def draw_roc(folder, ensembles, metrics):
    """roc.png (300 dpi) and roc.svg: wide light blue and thin black dashes (Okabe and Ito) stay apart in grey too."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from sklearn.metrics import roc_curve

    settings = {"font.size": 9, "axes.linewidth": 0.8, "svg.hashsalt": "aggregate", "svg.fonttype": "path"}
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(4.2, 4.4), layout="constrained")
        axes.plot((0, 1), (0, 1), color="0.6", linewidth=0.8, linestyle=":", label="chance")
        for (name, table), colour, dashes, width in zip(ensembles.items(), ("#56B4E9", "#000000"), ("-", (0, (4, 1.5))),
                                                        (3.5, 1.4), strict=True):
            labelled = table[table["target"].notna().to_numpy()]
            fpr, tpr, _ = roc_curve(labelled["target"].astype(int), labelled["ensemble_prob"])
            auc = metrics[name]["auc"]
            axes.plot(fpr, tpr, color=colour, linestyle=dashes, linewidth=width, clip_on=False, zorder=3,
                      label=f"{ENSEMBLES[name]}: AUC {auc['value']:.3f} "
                            f"(95 % CI {auc['ci_low']:.3f}–{auc['ci_high']:.3f})")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="False positive rate (1 − specificity)",
                 ylabel="True positive rate (sensitivity)")
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], loc="lower right", fontsize=7.5, framealpha=1)
        counts = metrics["avg"]
        axes.set_title(f"{metrics['set'].capitalize()} set: {counts['n']} scans, {counts['n_positive']} Deauville 4–5; "
                       f"{len(metrics['models'])} models", fontsize=9)
        if metrics["synthetic"]:
            figure.text(0.5, 0, SYNTHETIC, ha="center", va="top", fontsize=7.5)
        paths = [folder / "roc.png", folder / "roc.svg"]
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None}), strict=True):
            with replace_file(path, "wb") as file:
                figure.savefig(file, format=path.suffix[1:], dpi=300, metadata=metadata, bbox_inches="tight")
        plt.close(figure)
    return paths


def print_table(metrics):
    print(f"\n{'':<10}" + "".join(f"{name.replace('auc', 'AUC') + ' [95 % CI]':<24}" for name in METRICS))
    for name, label in ENSEMBLES.items():
        cells = (f"{value['value']:.3f} [{value['ci_low']:.3f}, {value['ci_high']:.3f}]" if value["value"] is not None
                 else "none" for value in (metrics[name][metric] for metric in METRICS))
        print(f"{label:<10}" + "".join(f"{cell:<24}" for cell in cells))
    methods = dict.fromkeys(metrics[name][metric]["ci_method"] for metric in METRICS for name in ENSEMBLES)
    print(f"one score per scan, positive at {THRESHOLD} or more; intervals: {'; '.join(filter(None, methods))}\n")


def _some(names, count=5):
    names = [str(name) for name in names]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


if __name__ == "__main__":
    run_script(get_args_parser, main)
