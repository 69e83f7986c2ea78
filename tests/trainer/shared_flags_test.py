import re

from absl import flags
import pytest

from luna_tfds.command_line import cli
from luna_tfds.errors import UsageError
from trainer import config as config_lib
from trainer import inspect
from trainer import shared_flags
from trainer import train


@pytest.mark.parametrize('command', [train, inspect])
def test_help_shows_for_each_flag_a_default_or_that_it_is_required(command, capsys):
  assert command.run(['command', '--help']) == 0
  lines = capsys.readouterr().out.splitlines()
  flags = [line for line in lines if re.match('  --', line)]
  assert len(flags) > 10
  without = [
    line
    for line in flags
    if 'default' not in line and '(required)' not in line and '--version' not in line
  ]
  assert without == []


def test_help_shows_old_names_beside_the_new_ones(capsys):
  assert train.run(['luna16-train', '--help']) == 0
  text = capsys.readouterr().out
  assert '  --augment_sharpness (or --augment_soften): ' in text
  assert '  --augment_flips_and_rot90 (or --augment_turns): ' in text
  assert '\n  --augment_soften' not in text


def test_only_given_values_are_returned():
  values = cli.new_flags()
  shared_flags.define_tta(values)
  shared_flags.define_dataset(values)
  cli.run('command', '', lambda unused: 0, values, ['command'])
  given = shared_flags.given_values(values, ('tta', 'dataset'))
  assert given == {'dataset': 'luna16_patches/axial_50px'}
  cli.run('command', '', lambda unused: 0, values, ['command', '--notta'])
  given = shared_flags.given_values(values, ('tta', 'dataset'))
  assert given == {'tta': False, 'dataset': 'luna16_patches/axial_50px'}


def test_input_flags_have_the_defaults_of_the_config():
  values = cli.new_flags()
  shared_flags.define_input(values, 'Seed.')
  cli.run('command', '', lambda unused: 0, values, ['command'])
  given = shared_flags.given_values(values, shared_flags.INPUT_NAMES)
  assert config_lib.InputConfig(batch_size=96, **given) == config_lib.InputConfig(
    batch_size=96
  )


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('turns', 'flips_and_rot90'),
    ('article_turned', 'article_rot90'),
    ('standard', 'standard'),
  ],
)
def test_old_names_of_augmentations_are_accepted(name, expected):
  values = flags.FlagValues()
  holder = shared_flags.define_augment(values, None, 'How images are varied.')
  values(['command', f'--augment={name}'])
  assert holder.value == expected
  assert expected in config_lib.AUGMENTATIONS


def test_resampling_out_of_range_is_refused():
  assert shared_flags.resampling(7, 3).resamples == 7
  with pytest.raises(UsageError, match=r'^--(bootstrap|seed) must be 0 or more'):
    shared_flags.resampling(-1, 0)


def test_froc_reference_flags():
  values = cli.new_flags()
  reference = shared_flags.define_froc_reference(values, 'required', 'default: all')
  arguments = ['--annotations=a.csv', '--annotations_excluded=e.csv', '--seriesuids=s']
  cli.run('command', '', lambda unused: 0, values, ['command', *arguments])
  assert reference.annotations.value == 'a.csv'
  assert reference.annotations_excluded.value == 'e.csv'
  assert reference.seriesuids.value == 's'
