# Common tasks, and modelpack at work as a build step.
#
#   make demo    train three small models and take each one all the way
#   make test    lint, then all tests but the sweeps
#   make bench   benchmarks, next to what else does the same
#   make sweep   the long sweeps
#   make docs    the pages of docs/ that are made from the code
#
# Everything runs in the virtual environment .venv, which is made when it is missing.

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODELPACK := $(BIN)/modelpack

# When modelpack itself changes, what it made is made again.
SOURCES := $(shell find modelpack -name '*.py')

MODELS := build/models
DEMO := build/demo

.PHONY: demo test lint bench sweep docs clean
.DELETE_ON_ERROR:
.SECONDARY:

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) $(MODELS)/keras_cnn.ready
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/conversion.py $(MODELS)
	$(BIN)/python benchmarks/forests.py
	$(BIN)/python benchmarks/validation.py pipeline build/validation
	$(BIN)/python benchmarks/validation.py large build/validation
	$(BIN)/python -m benchmarks.mutants make build/mutants
	$(BIN)/python -m benchmarks.mutants plant build/mutants
	$(BIN)/python -m benchmarks.mutants alarms build/mutants
	$(BIN)/python -m benchmarks.mutants table build/mutants

sweep: $(READY)
	$(BIN)/python -m pytest -m slow

docs: $(READY)
	$(BIN)/python -c 'from pathlib import Path; from modelpack.lowering import coverage; \
	Path("docs/reference/onnx-ops.md").write_text(coverage.page())'
	$(BIN)/python -c 'from pathlib import Path; from tests.sweep import keras_outcomes; \
	Path("docs/reference/keras-layers.md").write_text(keras_outcomes.page())'
	$(BIN)/python -W ignore -c 'from tests.sweep import test_sklearn_estimators as sweep; \
	sweep.PAGE.write_text(sweep.contents())'

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# --- the demo: trained models in, checked and quantized packages out ---------------------
#
# Each rule has one target and uses modelpack as any other build tool: when a command fails,
# make stops, and what was there before is still there.

demo: $(DEMO)/keras_cnn.tar $(DEMO)/torch_cnn.tar $(DEMO)/sklearn_mlp.tar
	@$(BIN)/python fixtures/demo_table.py $(DEMO)

$(MODELS)/data.ready: fixtures/train.py fixtures/data.py | $(READY)
	$(BIN)/python fixtures/train.py $(MODELS) --data-only
	touch $@

$(MODELS)/%.ready: fixtures/%.py fixtures/train.py fixtures/data.py $(MODELS)/data.ready
	$(BIN)/python fixtures/train.py $(MODELS) $* --no-data
	touch $@

# Several artifacts in a directory. The manifest is the target, written last. A model that was
# trained again is another model: its directory is made anew, since convert only adds to a
# directory of the same source.
$(DEMO)/keras_cnn/modelpack.yaml: $(MODELS)/keras_cnn.ready $(SOURCES)
	rm -rf $(@D)
	$(MODELPACK) convert --quiet $(MODELS)/keras_cnn.keras -o $(@D) \
	  --to onnx --to tflite --to savedmodel --data $(MODELS)/digits_nhwc.npz

$(DEMO)/torch_cnn/modelpack.yaml: $(MODELS)/torch_cnn.ready $(SOURCES)
	rm -rf $(@D)
	$(MODELPACK) convert --quiet fixtures/torch_cnn.py:build --weights $(MODELS)/torch_cnn.pt \
	  --input 'image:float32[batch,1,8,8]' --output logits -o $(@D) \
	  --to onnx --to tflite --to savedmodel --data $(MODELS)/digits_nchw.npz

$(DEMO)/sklearn_mlp/modelpack.yaml: $(MODELS)/sklearn_mlp.ready $(SOURCES)
	rm -rf $(@D)
	$(MODELPACK) convert --quiet $(MODELS)/sklearn_mlp.skops -o $(@D) \
	  --to onnx --to tflite --to savedmodel --data $(MODELS)/breast_cancer.csv

# Calibrated on training samples, gated on test samples: at most one point of accuracy.
CALIBRATION_keras_cnn := $(MODELS)/digits_nhwc_calibration.npz
CALIBRATION_torch_cnn := $(MODELS)/digits_nchw_calibration.npz
CALIBRATION_sklearn_mlp := $(MODELS)/breast_cancer_calibration.csv
TEST_keras_cnn := $(MODELS)/digits_nhwc.npz
TEST_torch_cnn := $(MODELS)/digits_nchw.npz
TEST_sklearn_mlp := $(MODELS)/breast_cancer.csv
# TFLite's calibration takes no string tensors, such as this model's labels.
STATIC_sklearn_mlp := --to onnx

$(DEMO)/%/quantized: $(DEMO)/%/modelpack.yaml
	$(MODELPACK) quantize --quiet $(@D) -o $(@D) --scheme static-int8 $(STATIC_$*) \
	  --calibration $(CALIBRATION_$*) --data $(TEST_$*) --metric accuracy --max-drop 0.01
	$(MODELPACK) quantize --quiet $(@D) -o $(@D) --scheme float16 \
	  --data $(TEST_$*) --metric accuracy --max-drop 0.01
	touch $@

$(DEMO)/%/validation.json: $(DEMO)/%/quantized
	$(MODELPACK) validate --quiet $(@D) --data $(TEST_$*) --bench --json > $@

$(DEMO)/%.tar: $(DEMO)/%/validation.json
	$(MODELPACK) package --quiet $(<D) -o $@ --layout archive
	$(MODELPACK) validate --quiet $@ --json > /dev/null
