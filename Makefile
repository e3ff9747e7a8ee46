# make demo       the whole chain on a synthetic cohort, from DICOM to demo/results/report.html (demo.py)
# make demo-data  its first half: the cohort, its MIPs in images/, data.csv as in the repository, with image_sha256
# make demo-loca  two heads, Deauville score and lesion site, on the same cohort, against a binary network trained alike
# make study-loca the same in earnest: 1000 patients, three runs of each, paired (100 minutes; goes on where it was stopped)
# make test       all fast tests (make test-slow: the long ones too)
# make test-robustness  5000 hostile files, by seed; every fault of the machine (kills, full disks, signals), sizes
# make gpu-check  the tests that need a CUDA device, and what training and prediction cost there (10 GB of temporary files)
# make lint       ruff, codespell, import-linter, mypy
# make docs       the pages of docs/reference that are made from the code: scripts.md, modules.md
# make lock       requirements.lock of requirements.txt, by uv (pip install uv)
# make clean      removes what the demo made and the virtual environment

PYTHON ?= python3
VENV = .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip install --disable-pip-version-check --progress-bar on
DEMO = demo
# With CPU=1 PyTorch comes from this index: that of its CPU wheels, see pytorch.org/get-started
TORCH_INDEX ?=

# What demo-loca and study-loca train both networks with, and what the two heads get beside it.
# --augm 4: the recipe's mirror images would exchange liver and spleen.
LOCA_TRAIN = --recipe fast --augm 4 --nepochs 8
LOCA_SITES = --site_head grid --site_lambda 1
STUDY = study
STUDY_RUNS = 1 2 3

.PHONY: demo demo-data demo-loca study-loca test test-slow test-robustness gpu-check lint docs lock clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 13); \
	    sys.exit(0 if ok else f"error: python3 is {v[0]}.{v[1]}; give Python 3.11 to 3.13 with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@[ -z "$(CPU)" ] || [ -n "$(TORCH_INDEX)" ] || \
	    { echo "error: CPU=1 needs TORCH_INDEX=URL, the index of PyTorch's CPU wheels: see pytorch.org/get-started"; exit 2; }
	$(if $(CPU),$(PIP) --index-url $(TORCH_INDEX) $$(grep -hE '^torch(vision)?==' requirements.txt))
	$(PIP) -r requirements-dev.txt
	@touch $@

# DICOM of a cohort -> MIPs, manifest and splits
COHORT_CODE = demo.py phantom.py $(wildcard synthetic/*.py) prepro_script.py $(wildcard preprocessing/*.py) \
              make_splits.py common/manifest.py
$(DEMO)/data_resplit.csv: $(COHORT_CODE) | $(VENV)/installed
	$(PY) demo.py --data_only --overwrite --output $(DEMO)

demo-data: $(DEMO)/data_resplit.csv
	$(PY) demo.py --data_only --output $(DEMO)

demo: $(DEMO)/data_resplit.csv
	$(PY) demo.py --output $(DEMO)

# $(call loca,COHORT,OUTPUT,RUNS,MORE TRAINING OPTIONS): both networks, each run alike, predicted, measured, compared
define loca
$(PY) train_loca.py --data $1/data_resplit.csv --run $3 --output $2/loca --resume $(LOCA_TRAIN) $(LOCA_SITES) $4
$(PY) train.py --data $1/data_resplit.csv --run $3 --output $2/binary --resume $(LOCA_TRAIN) $4
$(PY) predict_loca.py --data $1/data_resplit.csv --chptfolder $2/loca --output $2/loca --splits 0 0 --run $3 --set val test
$(PY) predict.py --data $1/data_resplit.csv --chptfolder $2/binary --output $2/binary --splits 0 0 --run $3 --set val test
$(PY) aggregate.py --dir $2/binary --output $2/binary --data $1/data_resplit.csv
$(PY) aggregate.py --dir $2/loca --output $2/loca --data $1/data_resplit.csv
$(PY) explain.py $(call looking,$1,$2,$3) --target site
$(PY) explain.py $(call looking,$1,$2,$3) --target binary
$(PY) compare.py $2/loca/ensemble_avg.csv $2/binary/ensemble_avg.csv --names "two heads" binary --output $2/compare
endef
looking = --data $1/data_resplit.csv --chptfolder $2/loca --splits 0 0 --run $3 --each --random 1 --max_scans 12 --output $2/heatmaps

demo-loca: demo-data
	$(call loca,$(DEMO),$(DEMO)/two,1)

$(STUDY)/data_resplit.csv: $(COHORT_CODE) | $(VENV)/installed
	$(PY) demo.py --data_only --overwrite --output $(STUDY) --patients 1000 --seed 5 --n_splits 1 --test 0.2 --val 0.08

study-loca: $(STUDY)/data_resplit.csv
	$(call loca,$(STUDY),$(STUDY),$(STUDY_RUNS))
	for run in $(STUDY_RUNS); do $(PY) compare.py $(STUDY)/loca/pred_split0_run$$run.csv \
	    $(STUDY)/binary/pred_split0_run$$run.csv --names "two heads" binary --output $(STUDY)/compare_run$$run || exit; done

# One process a core: every test file runs in one of them, so that its fixtures are made once.
PYTEST = $(PY) -m pytest -n 2 --dist loadfile

test: $(VENV)/installed
	$(PYTEST)

test-slow: $(VENV)/installed
	$(PYTEST) -m "slow or not slow"

test-robustness: $(VENV)/installed
	$(PY) -m pytest -n 2 tests/test_robustness.py --cases 5000
	$(PY) -m pytest -n 2 -m "slow or not slow" --durations 10 $(addprefix tests/test_,faults.py kills.py numbers.py size.py)

gpu-check: $(VENV)/installed
	$(PY) -m pytest -m gpu -rs
	$(PY) benchmark.py train predict --device cuda --n_images 2048 --frozen_images 3000

lint: $(VENV)/installed
	$(PY) -m ruff check .
	$(VENV)/bin/codespell
	$(VENV)/bin/lint-imports
	$(PY) -m mypy

docs: $(VENV)/installed
	$(PY) tests/docs_helpers.py

lock:
	{ sed -n '/^#/p;/^#/!q' requirements.lock; uv pip compile --universal --generate-hashes --python-version 3.11 --no-header \
	    --quiet requirements.txt; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(DEMO) $(STUDY) $(VENV)
	@[ ! -L images ] || rm images
