"""DICOM PET studies -> coronal and sagittal MIPs in SUV (.bin) and their manifest, data.csv.

python prepro_script.py --input dicom --output mips
python prepro_script.py --input dicom --output mips --labels labels.csv   # for training
python prepro_script.py --input dicom --list                            # what is there; writes nothing
python prepro_script.py --input dicom --labels_template template.csv    # the table to fill in with scores

Studies that give no trustworthy SUV are listed in errors.csv with the reason and a remedy; the others go on. The same
command again converts what is new or changed, and leaves the rest.
"""
import contextlib
import os
from pathlib import Path

from common.arguments import EXIT_SOME_FAILED, SEVERAL, Parser, positive_int, run_script
from common.files import InputError
from common.locks import locked
from common.workers import processes
from preprocessing import tables
from preprocessing.conversion import Options, convert_studies, error_row, refuse_dropping
from preprocessing.dicom_values import Refused
from preprocessing.dose import SUV_TYPES
from preprocessing.identifiers import check_same_key, find_key, read_key, update_crosswalk
from preprocessing.labels import check_targets, join_labels, read_labels, write_template
from preprocessing.series_choice import print_list
from preprocessing.studies import (
    add_key_argument,
    add_study_arguments,
    check_study_arguments,
    crosswalk_rows,
    find_asked,
)


def get_args_parser():
    parser = Parser(__doc__)
    group = add_study_arguments(parser)
    group.add_argument("--checksums", metavar="FILE", help="SHA-256 sums as sha256sum writes them, names relative to "
                       "--input: files that are changed, missing or not listed are refused")
    group.add_argument("--labels", metavar="TABLE",
                       help="CSV or .xlsx of target (0 or 1) or deauville (1 to 5) and what names the study: "
                            "StudyInstanceUID, scan_id, AccessionNumber, or PatientID and StudyDate; optionally "
                            "target_loc and patient_id (instead of PatientID; hashed)")
    group.add_argument("--carry", **SEVERAL, default=[], metavar="COLUMN", help="columns of --labels to carry into "
                       "data.csv, beside target, target_loc and deauville, as they stand there")
    group.add_argument("--skip_unlabelled", action="store_true", help="pass over studies without a row in --labels "
                       "(default: they are refused)")
    group.add_argument("--target_from_masks", action="store_true", help="target 1 where the mask of a study holds a "
                       "lesion, 0 where it is empty, none where there is no mask; not for studies with a target in "
                       "--labels")
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="FOLDER", help="gets images/*.bin, data.csv, errors.csv, qc.html, "
                                                                "done.json")
    group.add_argument("--save_suv", action="store_true", help="write each study's SUV volume, too: suv/SCAN.nii.gz")
    group.add_argument("--list", action="store_true", help="print the studies and PET series that are there, and which "
                       "would be used and why; convert and write nothing")
    group.add_argument("--labels_template", metavar="FILE", help="write the table to fill in for --labels, a row a "
                       "study, which names patients; convert nothing")
    group.add_argument("--suv", choices=list(SUV_TYPES), default="bw", help="normalise to " + ", ".join(
                       f"{meaning} ({name})" for name, meaning in SUV_TYPES.items()))
    group.add_argument("--spacing", type=float, default=3.27, help="pixel size of the MIPs, mm")
    group.add_argument("--views", type=positive_int, default=2, metavar="N", help="projections at N angles, in whole "
                       "degrees, evenly over half a turn about the body's axis (the other half are mirror images): "
                       "coronal (cor, 0) and sagittal (sag, 90) always, the others as rot030 for 30 degrees")
    add_key_argument(group)
    group.add_argument("--keep_ids", action="store_true", help="write StudyInstanceUID and PatientID as they are")
    group = parser.add_argument_group("running")
    group.add_argument("--overwrite", action="store_true", help="convert again what done.json in --output says is done "
                       "and unchanged")
    group.add_argument("--workers", type=positive_int, default=os.cpu_count() or 1,
                       help="processes (default: one per CPU core)")
    return parser


def main(args):
    check_arguments(args)
    labels, labelled = None, None
    if args.labels and not listing(args):
        labels = read_labels(args.labels, args.carry, tables.OWN_COLUMNS, not args.target_from_masks)
    lock = contextlib.nullcontext() if listing(args) else locked(Path(args.output, "running.lock"),
                                                                 f"{args.output} is written")
    with lock, processes(args.workers) as run:
        folder, studies, refused = find_asked(args, run, args.checksums)
        if args.labels_template:
            write_template(studies, args.labels_template)
        if listing(args):
            return EXIT_SOME_FAILED if args.list and print_list(studies, refused, run) else None
        output = Path(args.output)
        key_file = None if args.keep_ids else find_key(args.key, output)
        key = read_key(key_file) if key_file else None
        if not args.overwrite:
            check_same_key(output, key)
            refuse_dropping(output, folder, studies, refused, key)
        if labels:
            labelled = join_labels(labels, studies, key)
            if args.target_from_masks:
                check_targets(labels, labelled, studies)
        wanted = {uid: study for uid, study in studies.items() if labelled is None or uid in labelled}
        unlabelled = [study.folder for uid, study in studies.items() if uid not in wanted]
        options = Options(args.spacing, args.views, args.allow_uncorrected, args.save_suv, args.suv, args.frames)
        made, failed = convert_studies(wanted, folder, output, key, options, args.overwrite, run)
        tables.print_alike(made, studies, labelled)
        rows = tables.with_labels(made, labelled, key, args.target_from_masks)
        errors = failed + [error_row(where, error) for where, error in refused]
        if not args.skip_unlabelled:
            remedy = "add a row, remove the study, or give --skip_unlabelled"
            errors += [error_row(where, Refused("StudyInstanceUID", "", "no row in --labels", remedy))
                       for where in unlabelled]
        errors.sort(key=lambda row: row["study"])
        tables.write_results(rows, errors, labels.carried if labels else [], output, args.overwrite, run)
        if key_file:
            update_crosswalk(key_file, crosswalk_rows({uid: studies[uid] for uid in made}, key))
        tables.print_results(rows, errors, len(unlabelled) if args.skip_unlabelled else 0, output)
        if args.suv == "bsa":
            print("--suv bsa: no network here reads these MIPs; for one, --suv bw or lbm")
        return EXIT_SOME_FAILED if errors else None


def listing(args):
    """Whether nothing is to be converted."""
    return args.list or args.labels_template


def check_arguments(args):
    check_study_arguments(args)
    if not listing(args) and not args.output:
        raise InputError("--output: missing; give the folder to write to, or --list")
    if args.carry and not args.labels:
        raise InputError("--carry: needs --labels")
    if not 0.5 <= args.spacing <= 20:
        raise InputError(f"--spacing {args.spacing:g}: must be 0.5 to 20 mm")
    if args.skip_unlabelled and not args.labels:
        raise InputError("--skip_unlabelled: needs --labels")
    if args.views > 180:
        raise InputError(f"--views {args.views}: must be at most 180, one a degree")


if __name__ == "__main__":
    run_script(get_args_parser, main)
