"""Write a synthetic FDG PET cohort (DICOM series and labels.csv), so that everything runs without patient data.

python phantom.py --output cohort --patients 250 --seed 0 --workers 2
python phantom.py --output one --patients 1 --arms down
python phantom.py --output gemini --patients 20 --vendor philips   # that vendor's files, private attributes included

It writes OUTPUT/PATIENT/STUDY/NNN.dcm (one slice a file) and OUTPUT/labels.csv. Every image says SYNTHETIC.

How patients, bodies, lesions and files come about: synthetic/cohort.py, body.py, lesions.py, pet_series.py.
"""
import os
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script
from common.files import write_csv
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", required=True, metavar="DIR", help="folder of the cohort; its studies are replaced")
    add = parser.add_argument_group("cohort").add_argument
    add("--patients", type=positive_int, default=250, metavar="N", help="with one to three scans each")
    add("--seed", type=natural_int, default=0, help="the same seed gives the same bytes")
    add("--arms", choices=("mixed", "up", "down"), default="mixed", help="position of the arms")
    add("--vendor", choices=("mixed", "siemens", "ge", "philips"), default="mixed",
        help="whose files: mixed is BQML with any of the names; siemens has bed positions of several times, ge its "
             "private scan datetime, philips counts (CNTS) with private factors; the same patients and SUV from each")
    add("--workers", type=positive_int, default=os.cpu_count() or 1, metavar="W",
        help="processes; they do not change the result (default: one per CPU core)")
    return parser


def main(args):
    from synthetic import cohort

    output = Path(args.output)
    patients = [cohort.plan_patient(args.seed, index, args.arms) for index in range(args.patients)]
    cohort.check_output(output, patients)
    labels = cohort.write_patients(patients, output, args.vendor, args.workers)
    write_csv(labels, output / "labels.csv")
    print(f"{counted(len(labels), 'SYNTHETIC scan')} of {counted(len(patients), 'patient')}, {labels.target.sum()} "
          f"with target 1: {output}")
    print(f"labels: {output / 'labels.csv'}")


if __name__ == "__main__":
    run_script(get_args_parser, main)
