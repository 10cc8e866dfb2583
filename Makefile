# Two commands for a newcomer: `make demo` and `make test`. Both need Python 3.10+ and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO := training-runs/demo

COMPAT := 2.6.0 2.13.0
CORE := tests/dnnlib tests/torch_utils tests/training tests/semantic tests/test_legacy.py tests/test_hostile_files.py \
	tests/test_train.py tests/test_train_recovery.py

.PHONY: demo test torture compat gpu results lint clean help $(COMPAT:%=compat-%)

help:
	@echo "make demo   draw faces, train for two minutes, make a mixing sheet and an edit with the bundled network (under 5 minutes on 2 cores)"
	@echo "make test   run all tests (under 12 minutes on 2 cores)"
	@echo "make lint   check style"
	@echo "make results   train and measure everything in docs/results.md: hours on a GPU, days without; goes on where it stopped"
	@echo "make gpu    check and time everything on a GPU with the Python that is there: out/gpu"
	@echo "make torture   all mutated inputs, broken pipes, full disks and twenty kills of one process and of two"
	@echo "make compat    the core of the tests with PyTorch $(COMPAT); downloads up to 3 GB, keeps 6 GB under $(VENV)"

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

out/demo/faces32.zip: | $(READY)
	$(RUN) dataset_tool.py --source=procedural --width=32 --height=32 --max-images=1000 --dest=$@

demo: $(READY) out/demo/faces32.zip
	$(RUN) train.py --cfg=semantic --data=out/demo/faces32.zip --mirror=1 --kimg=1.2 --batch=8 --cbase=512 --snap=6 --outdir=$(DEMO)
	$(RUN) generate.py --mix-regions --save-masks --outdir=out/demo
	$(RUN) edit.py --seeds=2 --swap=hair:5 --transform=hair:scale=1.1 --sheet --outdir=out/demo
	@echo
	@echo "Look at out/demo (mixing sheet, its masks, and an edited face) and at the newest folder under $(DEMO) (grids, statistics)."

test: $(READY)
	$(RUN) -m pytest

torture: $(READY)
	TORTURE=1 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/test_mutated_inputs.py tests/torture

# PyPI has 2.6.0 for Linux with CUDA's libraries only, and it does not load without them. Where PyTorch's own index can be
# reached, TORCH_INDEX="--index-url=https://download.pytorch.org/whl/cpu" is twenty times smaller.
$(VENV)/torch-%/.ready: requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) torch==$*
	grep -v '^torch==' $< | $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	touch $@

compat: $(COMPAT:%=compat-%)

$(COMPAT:%=compat-%): compat-%: $(VENV)/torch-%/.ready
	OMP_NUM_THREADS=1 $(VENV)/torch-$*/bin/python -m pytest $(CORE)

gpu:
	mkdir -p out/gpu
	$(PYTHON) -m tests.benchmarks.gpu_operators --out=out/gpu/operators.md
	$(PYTHON) -m tests.benchmarks.gpu_local --out=out/gpu/local.md
	$(PYTHON) -m tests.benchmarks --device=cuda --batch=16 --precision=bf16 --batches=1,4,16 --seconds=4 --out=out/gpu/table.md
	$(PYTHON) -m tests.benchmarks.editor --device=cuda --sizes=128,512 > out/gpu/editor.md
	$(PYTHON) -m tests.benchmarks.precision --device=cuda --resolution=64 --batch=16 > out/gpu/precision.txt

# On a GPU: make results RESOLUTION=128 KIMG=2000 TRAIN=
RESOLUTION := 64
KIMG := 200
TRAIN := --batch=8 --cbase=1024 --workers=0
results: $(READY)
	for recipe in faces fasseg ccp; do $(RUN) -m tests.benchmarks.quality $$recipe --resolution=$(RESOLUTION) --kimg=$(KIMG) --train-options='$(TRAIN)' || exit; done
	test -f out/faces32.zip || $(RUN) dataset_tool.py --source=procedural --width=32 --height=32 --max-images=10000 --dest=out/faces32.zip
	$(RUN) -m tests.benchmarks.ablations --data=out/faces32.zip

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) out/demo
