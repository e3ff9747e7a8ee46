"""From a patient's study to the probability of Deauville 4-5: a line on the terminal, a page to look at.

python score.py --input STUDY --models results --output scored                # one study, or a folder of many
python score.py --input STUDY --models models.zip --output scored             # the zip of export_models.py
python score.py --input STUDY --models models.zip --output scored --dicom     # for the PACS, too
python score.py --input STUDY --checkpoints lars/A.pth lars/B.pth --output scored

STUDY: DICOM, or SUV volumes (NIfTI, NRRD), as of prepro_script.py, whose rules and refusals hold here. Writes to
--output score.html, the page of the study, or of many an index that sorts, and scans/SCAN.html; scores.csv; scans/, the
MIPs with their manifest, too. The score is LARS-avg, the mean (median, where operating_points.json says so) over the
networks of each one's mean over a scan's views, as of predict.py and aggregate.py. Scans are named by the key's hash
(crosswalk.csv beside the key leads back to patients); no page holds an identifier. For research use only.
"""
import os
from pathlib import Path

from common import arguments
from common.arguments import EXIT_SOME_FAILED, SEVERAL, Parser, positive_int, run_script
from common.files import InputError
from common.locks import locked
from common.text import counted
from common.workers import processes
from preprocessing.studies import add_key_argument, add_study_arguments, check_study_arguments


def get_args_parser():
    parser = Parser(__doc__)
    add_study_arguments(parser)
    models = parser.add_argument_group("models")
    either = models.add_mutually_exclusive_group(required=True).add_argument
    either("--models", type=Path, metavar="DIR", help="folder of checkpoints and best_run.csv, or the zip of "
           "export_models.py")
    either("--checkpoints", **SEVERAL, metavar="FILE", help="these checkpoints instead, of this toolkit or of LARS, by "
           "whatever name; no threshold but 0.5")
    add = models.add_argument
    add("--top", type=positive_int, metavar="K", help="the K best of best_run.csv (default: those of "
        "operating_points.json; where there is none, all)")
    add("--batch_size", type=positive_int, default=50, metavar="N", help="images per batch")
    add("--crop_bodies", action="store_true", help="crop bodies that are larger than the frame, instead of refusing "
        "them")
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("-o", "--output", required=True, metavar="DIR", help="folder to write to")
    add("--dicom", action="store_true", help="write to dicom/ the picture as a Secondary Capture Image and the numbers "
        "as an Enhanced SR (TID 1500), in the patient's study: they hold the patient's name as the study does")
    add_key_argument(output)
    add("--keep_ids", action="store_true", help="name scans by StudyInstanceUID and PatientID as they are")
    add = parser.add_argument_group("running").add_argument
    add("--overwrite", action="store_true", help="convert again what is converted and unchanged")
    add("--workers", type=positive_int, default=os.cpu_count() or 1, help="processes of the conversion (default: one "
        "per CPU core)")
    arguments.add_device_arguments(parser)
    return parser


def main(args):
    check_study_arguments(args)
    with locked(Path(args.output, "running.lock"), f"{args.output} is written"):
        return score_studies(args)


def score_studies(args):
    """The steps from studies to pages -> the exit code."""
    from common.files import progress, write_csv
    from common.manifest import read_manifest
    from inference import scan_picture, score_page, scoring
    from inference.prediction import open_models
    from training.device import open_device

    if args.dicom:
        from inference import dicom_report
        dicom_report.find_highdicom()
    output, folder = Path(args.output), Path(args.output) / "scans"
    runs = scoring.chosen_runs(args.models, args.top, args.checkpoints)
    inputs = scoring.inputs_of(runs)
    made, studies, errors = convert(args, folder, inputs)
    earlier = score_page.earlier_files(output)
    if not made:
        score_page.remove_stale(output, earlier, ())
        return EXIT_SOME_FAILED

    device, amp = open_device(args.device, args.amp, args.threads)
    data = folder / "data.csv"
    notes: list[str] = []
    models = list(open_models(runs, read_manifest(data, need_target=False), str(args.models), str(data), str(folder),
                              ["all"], device, amp, args.batch_size, crop_bodies=args.crop_bodies, say=notes.append))
    scores = scoring.score(models, args.models, made, notes)
    about, several = score_page.about_models(models), len(scores.scans) > 1
    pages = {scan.scan_id: f"scans/{scan.scan_id}.html" if several else "score.html" for scan in scores.scans}
    failed: list[str] = []
    with progress(scores.scans, "heat maps and pages", "scan") as bar:
        for scan in bar:
            picture = scan_picture.draw(scan, scores, models, folder)
            score_page.write_scan(output / pages[scan.scan_id], scan, scores, about, picture, "../score.html" * several)
            if args.dicom:
                failed += write_dicom(args, scan, scores, picture, studies[scan.scan_id])
    if several:
        score_page.write_index(output / "score.html", scores, pages, errors, about)
    write_csv(scoring.table_of(scores), output / "scores.csv")
    score_page.remove_stale(output, earlier, ("score.html", "scores.csv", *pages.values()))
    print("\n".join([*scoring.lines_of(scores), *failed]))
    print(f"{counted(len(scores.scans), 'scan')}, {counted(len(models), 'network')}: "
          f"{output / 'score.html'}; for research use only")
    return EXIT_SOME_FAILED if errors or failed else None


def convert(args, folder, inputs):
    """Studies -> MIPs as the models take them, in `folder`: ({scan: a row}, {scan: study}, rows of errors.csv)."""
    from inference import scoring
    from preprocessing import tables
    from preprocessing.conversion import Options, convert_studies, error_row, refuse_dropping
    from preprocessing.dicom_values import Refused
    from preprocessing.identifiers import check_same_key, find_key, read_key, update_crosswalk
    from preprocessing.studies import crosswalk_rows, find_asked
    from preprocessing.volumes import is_volume

    with processes(args.workers) as run:
        searched, studies, refused = find_asked(args, run)
        for study in studies.values() if args.dicom else ():
            if any(is_volume(path) for paths in study.series.values() for path in paths):
                raise InputError(f"--dicom: {study.folder} is no DICOM study, so that there is none to write to; leave "
                                 "--dicom out")
        key_file = None if args.keep_ids else find_key(args.key, Path(args.output))
        key = read_key(key_file) if key_file else None
        if not args.overwrite:
            check_same_key(folder, key)
            refuse_dropping(folder, searched, studies, refused, key)
        views = scoring.projections({view for each in inputs for view in each.views})
        options = Options(inputs[0].spacing_mm or scoring.SPACING_MM, views, args.allow_uncorrected,
                          suv_type=inputs[0].suv_type, frames=args.frames)
        made, errors = convert_studies(studies, searched, folder, key, options, args.overwrite, run)
    if key_file:
        update_crosswalk(key_file, crosswalk_rows({uid: studies[uid] for uid in made}, key))
    of_scan = {rows[0]["scan_id"]: studies[uid] for uid, rows in made.items()}
    rows = tables.with_labels(made, None, key, False)
    unfit, cut = scoring.unusable(rows, folder, inputs, args.crop_bodies)
    errors += [error_row(where, error) for where, error in refused]
    errors += [error_row(of_scan[scan].folder, Refused("image", "", reason, "see what the networks take"))
               for scan, reason in unfit.items()]
    rows = [row for row in rows if row["scan_id"] not in unfit]
    errors.sort(key=lambda row: row["study"])
    tables.write_tables(rows, errors, [], folder)
    tables.print_refused(errors, folder)
    for row in rows:  # what the networks see less of is no warning of the manifest's
        row["warnings"] = "; ".join(filter(None, (row["warnings"], cut.get(row["scan_id"]))))
    return {row["scan_id"]: row for row in rows}, of_scan, errors


def write_dicom(args, scan, scores, picture, study):
    """The scan's picture and numbers in its study, by inference/dicom_report.py -> [], or a line that says why not."""
    from inference.dicom_report import write_objects
    from preprocessing.archives import local_files
    from preprocessing.series_choice import choose_series

    try:
        with local_files(choose_series(study, args.frames is not None)[0]) as files:
            write_objects(scan, scores, picture, files, Path(args.output) / "dicom")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a header provokes in highdicom: the page and the other scans go on
        # other messages may quote what names a patient
        reason = error if isinstance(error, InputError) else f"{type(error).__name__}, for a value of its header"
        return [f"warning: {scan.scan_id}: no DICOM objects were written: {reason}"]
    return []


if __name__ == "__main__":
    run_script(get_args_parser, main)
