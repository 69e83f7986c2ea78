"""Runs luna16-evaluate and reads what it wrote."""

import csv
import json

import numpy as np

from trainer import evaluate

EVERYTHING = 'train+validation+test'
QUICK = '--bootstrap=50'


def run(*arguments):
  """Runs the command with few resamples; returns its exit code."""
  return evaluate.run(['luna16-evaluate', QUICK, *map(str, arguments)])


def read_metrics(folder):
  """Returns the content of metrics.json."""
  return json.loads((folder / 'metrics.json').read_text())


def read_predictions(folder):
  """Returns the rows of predictions.csv."""
  with (folder / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def column(rows, name, kind=float):
  """Returns a column of rows as an array."""
  return np.array([kind(row[name]) for row in rows])
