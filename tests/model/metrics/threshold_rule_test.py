import json
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import pytest

from model.metrics.threshold_rule import TARGETS
from model.metrics.threshold_rule import ThresholdRule


@pytest.mark.parametrize(
  ('text', 'rule'),
  [
    ('max_f1', ThresholdRule('max_f1')),
    ('precision:0.893', ThresholdRule('precision', 0.893)),
    ('recall:1', ThresholdRule('recall', 1.0)),
    ('specificity:.5', ThresholdRule('specificity', 0.5)),
    ('0.25', ThresholdRule('fixed', 0.25)),
    ('0', ThresholdRule('fixed', 0.0)),
  ],
)
def test_rules_are_parsed(text, rule):
  assert ThresholdRule.parse(text) == rule


@pytest.mark.parametrize(
  'text',
  [
    '',
    'best',
    'recall',
    'recall:',
    'recall:1.1',
    'f1:0.5',
    '-0.5',
    '1.2.3',
    '2',
    'nan',
  ],
)
def test_other_texts_are_refused_with_the_list_of_rules(text):
  with pytest.raises(ValueError, match=r'max_f1, precision:P.*Received') as error:
    ThresholdRule.parse(text)
  assert repr(text) in str(error.value)


@pytest.mark.parametrize(
  ('name', 'value'),
  [('max_f1', 0.5), ('recall', None), ('fixed', None), ('f1', 0.5), ('fixed', 1.5)],
)
def test_inconsistent_rules_are_refused(name, value):
  with pytest.raises(ValueError, match='threshold must be'):
    ThresholdRule(name, value)


@hypothesis.given(
  st.sampled_from(['fixed', *TARGETS]), st.integers(0, 1000).map(lambda k: k / 1000)
)
def test_text_of_a_rule_is_parsed_to_the_same_rule(name, value):
  rule = ThresholdRule(name, value)
  assert ThresholdRule.parse(str(rule)) == rule


def test_only_a_number_is_a_fixed_threshold():
  assert ThresholdRule.parse('0').fixed_threshold == 0
  assert ThresholdRule.parse('0.75').fixed_threshold == 0.75
  assert ThresholdRule.parse('recall:0.75').fixed_threshold is None
  assert ThresholdRule.parse('max_f1').fixed_threshold is None


def test_module_loads_the_standard_library_only():
  code = (
    'import json, sys; before = set(sys.modules)\n'
    'import model.metrics.threshold_rule\n'
    'roots = {name.partition(".")[0] for name in set(sys.modules) - before}\n'
    'print(json.dumps(sorted(roots - set(sys.stdlib_module_names))))\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', code], check=True, capture_output=True, text=True
  )
  assert json.loads(result.stdout) == ['model']
