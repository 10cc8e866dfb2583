# Two commands for a newcomer: `make demo` and `make test`. Both need Python 3.10+ and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO := training-runs/demo

.PHONY: demo test lint clean help

help:
	@echo "make demo   draw faces, train for two minutes, make a region-mixing sheet (under 5 minutes on 2 cores)"
	@echo "make test   run all tests (under 12 minutes on 2 cores)"
	@echo "make lint   check style"

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

out/demo/faces32.zip: | $(READY)
	$(RUN) dataset_tool.py --source=procedural --width=32 --height=32 --max-images=1000 --dest=$@

demo: $(READY) out/demo/faces32.zip
	$(RUN) train.py --cfg=semantic --data=out/demo/faces32.zip --mirror=1 --kimg=2 --batch=8 --cbase=512 --snap=10 --outdir=$(DEMO)
	$(RUN) generate.py --mix-regions --save-masks --outdir=out/demo
	@echo
	@echo "Look at out/demo (mixing sheet and its masks) and at the newest folder under $(DEMO) (grids, statistics)."

test: $(READY)
	$(RUN) -m pytest

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) out/demo
