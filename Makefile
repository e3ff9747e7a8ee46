# make demo       the whole chain on a synthetic cohort, from DICOM to demo/results/report.html
# make demo-data  its first half: the cohort, its MIPs in images/, data.csv as it stands in the repository
# make test       all fast tests (make test-slow: the long ones too)
# make lint       ruff
# make clean      removes what the demo made and the virtual environment

PYTHON ?= python3
VENV = .venv
PY = $(VENV)/bin/python
DEMO = demo
PATIENTS = 300
SEED = 1

# What the demo trains with: see "Demo" in README.md. --weights none: it needs no download.
DEMO_TRAIN = --weights none --image_size auto --pool 2 --augm 4 --nepochs 6 --batch_size 8 \
             --optimizer adamw --lr 0.0015 --wd 0.01 --lr_schedule onecycle

.PHONY: demo demo-data test test-slow lint clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 13); \
	    sys.exit(0 if ok else f"error: python3 is {v[0]}.{v[1]}; give Python 3.11 to 3.13 with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --progress-bar on -r requirements-dev.txt
	@touch $@

# DICOM of the cohort -> MIPs, manifest and splits. images is a link, so that data.csv finds its files.
$(DEMO)/data_resplit.csv: phantom.py phantom_body.py prepro_script.py discovery.py suv.py geometry.py \
                         dicom_file.py make_splits.py manifest.py | $(VENV)/installed
	$(PY) phantom.py --output $(DEMO)/dicom --patients $(PATIENTS) --seed $(SEED)
	$(PY) prepro_script.py --input $(DEMO)/dicom --output $(DEMO) --labels $(DEMO)/dicom/labels.csv --keep_ids
	$(PY) make_splits.py --data $(DEMO)/data.csv --n_splits 20 --seed 0

demo-data: $(DEMO)/data_resplit.csv
	ln -sfn $(DEMO)/images images
	@cmp -s data.csv $(DEMO)/data_resplit.csv || echo "warning: data.csv differs from $(DEMO)/data_resplit.csv, the manifest of these images"

demo: demo-data
	$(PY) train.py --data $(DEMO)/data_resplit.csv --split_index 0 1 --run 1 --output $(DEMO)/results --overwrite $(DEMO_TRAIN)
	$(PY) find_best_model.py --dir $(DEMO)/results
	$(PY) predict.py --data $(DEMO)/data_resplit.csv --output $(DEMO)/results --chptfolder $(DEMO)/results \
	    --splits 0 1 --set val test
	$(PY) aggregate.py --dir $(DEMO)/results --output $(DEMO)/results --data $(DEMO)/data_resplit.csv --by view vendor sex

test: $(VENV)/installed
	$(PY) -m pytest

test-slow: $(VENV)/installed
	$(PY) -m pytest -m "slow or not slow"

lint: $(VENV)/installed
	$(PY) -m ruff check .

clean:
	rm -rf $(DEMO) images $(VENV)
