"""Terms of the loss that are not in the paper.

Add a term named NAME:

1. Write `semantic/terms/NAME.py`: a subclass of `semantic.terms.term.Term` with `real`, `fake` or `step`, and a report
   to `training_stats` as `Loss/NAME`. Tensors that it updates go into `running`, so that a resume restores them.
2. Enter it in `TERMS` of `semantic.loss.SemanticLoss`. The loss now takes `NAME_weight`, 0 by default.
3. Give it a weight in `semantic.presets`: a field of `Size`, with values in `TUNED`, that `semantic_options` passes as
   `NAME_weight`.
4. For an option `--NAME` of train.py, add the option to `train.py`, and NAME to `options` and `loss_weights` of
   `semantic.presets.Semantic`.
5. Describe it in docs/training.md: its option, its row under *Recipes* and its statistic.

The option `--locality` sets the weight of `locality`. The recipe alone sets the weights of `segmentation` and `prior`.
"""
