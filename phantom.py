"""Write a synthetic FDG PET cohort (DICOM series and labels.csv), so that everything runs without patient data.

python phantom.py --output cohort --patients 250 --seed 0 --workers 2
python phantom.py --output one --patients 1 --arms down
python phantom.py --output gemini --patients 20 --vendor philips   # that vendor's files, private attributes included

It writes OUTPUT/PATIENT/STUDY/NNN.dcm (one slice a file) and OUTPUT/labels.csv. Every image says SYNTHETIC.

How patients, bodies, lesions and files come about: synthetic/cohort.py, body.py, lesions.py, pet_series.py.
"""
import os
from pathlib import Path

from common.arguments import Parser, run_script
from common.files import InputError, write_csv


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="DIR", help="folder of the cohort; its studies are replaced")
    group = parser.add_argument_group("cohort")
    group.add_argument("--patients", type=int, default=250, metavar="N", help="patients; each has one to three scans")
    group.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    group.add_argument("--arms", choices=("mixed", "up", "down"), default="mixed", help="position of the arms")
    group.add_argument("--vendor", choices=("mixed", "siemens", "ge", "philips"), default="mixed",
                       help="whose files: mixed is BQML with any of the names; siemens has bed positions of several "
                            "acquisition times, ge its private scan datetime, philips counts (CNTS) with private "
                            "factors; the same patients and SUV from each")
    group.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="W",
                       help="processes; they do not change the result (default: one per CPU core)")
    return parser


def main(args):
    from synthetic import cohort

    for name, lowest in (("patients", 1), ("seed", 0), ("workers", 1)):
        if getattr(args, name) < lowest:
            raise InputError(f"--{name} {getattr(args, name)}: give {lowest} or more")
    output = Path(args.output)
    patients = [cohort.plan_patient(args.seed, index, args.arms) for index in range(args.patients)]
    cohort.check_output(output, [patient["patient"] for patient in patients])
    labels = cohort.write_patients(patients, output, args.vendor, args.workers)
    write_csv(labels, output / "labels.csv")
    print(f"{len(labels)} SYNTHETIC scans of {len(patients)} patients, {labels.target.sum()} with target 1: {output}")
    print(f"labels: {output / 'labels.csv'}")


if __name__ == "__main__":
    run_script(get_args_parser, main)
