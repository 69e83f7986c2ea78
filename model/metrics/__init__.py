"""Metrics of a binary classifier and of a detector, as functions of NumPy arrays.

- `classification`: confusion matrix, rates, areas under the ROC and precision-recall
  curves, calibration; the names of the metrics and their labels.
- `threshold_rule`: parses a rule such as 'precision:0.9'; needs the standard library
  only. `thresholds`: chooses the decision threshold by such a rule.
- `resampling`: draws scans with replacement; intervals. `bootstrap`: intervals of the
  metrics and of the differences between two classifiers.
- `froc_matching`: matches the marks of a detector with nodules, by LUNA16's protocol.
  `froc`: FROC curve, CPM and confidence band from the result.
"""
