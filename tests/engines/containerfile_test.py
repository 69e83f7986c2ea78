import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def test_the_entry_point_is_of_the_version_of_beam_that_is_tested():
  recipe = (ROOT / 'engines' / 'Containerfile').read_text()
  constraints = (ROOT / 'constraints.txt').read_text()
  (tested,) = re.findall(r'^apache-beam==(\S+)', constraints, re.MULTILINE)
  assert re.findall(r'beam_python\S*:(\S+)', recipe) == [tested]
