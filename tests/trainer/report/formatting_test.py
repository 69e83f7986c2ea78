import math

import pytest

from model.metrics.resampling import Interval
from trainer.report import formatting


@pytest.mark.parametrize(
  ('value', 'digits', 'text'),
  [(0.12345, 3, '0.123'), (0.5, 4, '0.5000'), (None, 4, '–'), (math.nan, 4, '–')],
)
def test_number(value, digits, text):
  assert formatting.number(value, digits) == text


@pytest.mark.parametrize(
  ('bounds', 'text'),
  [
    (Interval(0.1, 0.25), '0.100 … 0.250'),
    (Interval(math.nan, math.nan), ''),
    (None, ''),
  ],
)
def test_interval(bounds, text):
  assert formatting.interval(bounds) == text


def test_warnings_as_sentences():
  assert formatting.sentences(['a leak', 'few scans']) == ['A leak.', 'Few scans.']


def test_a_sentence_that_begins_with_a_name_keeps_it():
  assert formatting.sentences(['the end', 'luna16_patches/article holds']) == [
    'The end.',
    'luna16_patches/article holds.',
  ]
