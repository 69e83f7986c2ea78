import pytest

from luna_tfds.command_line import cli
from luna_tfds.command_line import cli_flags


def values_with(define, *arguments):
  """Defines a flag, parses arguments, and returns its holder."""
  values = cli.new_flags()
  holder = define(values)
  assert cli.run('command', '', lambda unused: 0, values, ['command', *arguments]) == 0
  return holder


def help_of(define, capsys):
  values = cli.new_flags()
  define(values)
  assert cli.run('command', '', lambda unused: 0, values, ['command', '--help']) == 0
  return capsys.readouterr().out


def test_data_dir_has_a_default(capsys):
  assert values_with(cli_flags.define_data_dir).value == '~/tensorflow_datasets'
  assert "(default: '~/tensorflow_datasets')" in help_of(
    cli_flags.define_data_dir, capsys
  )


def test_data_dir_of_commands_that_find_it_in_a_workdir(capsys):
  def define(values):
    return cli_flags.define_data_dir(values, default=None)

  assert values_with(define).value is None
  text = help_of(define, capsys)
  assert '--data_dir: TFDS data folder (default: where training found the' in text


def test_luna_dir_says_what_is_taken_from_it(capsys):
  def define(values):
    return cli_flags.define_luna_dir(values, 'its scans are read (required).')

  assert values_with(define, '--luna_dir=luna').value == 'luna'
  assert 'LUNA16 download; its scans are read (required).' in help_of(define, capsys)


@pytest.mark.parametrize('name', ['output_dir', 'out_dir'])
def test_output_dir_is_accepted_under_its_old_name(name):
  def define(values):
    return cli_flags.define_output_dir(values, 'Folder.', old_name='out_dir')

  assert values_with(define, f'--{name}=there').value == 'there'


def test_old_name_of_another_command_is_not_accepted(error_line):
  values = cli.new_flags()
  cli_flags.define_output_dir(values, 'Folder.')
  arguments = ['command', '--out_dir=there']
  assert cli.run('command', '', lambda unused: 0, values, arguments) == 2
  assert 'out_dir' in error_line()


def test_seed_is_0_or_more(error_line):
  def define(values):
    return cli_flags.define_seed(values, 'Hash seed.')

  assert values_with(define).value == 0
  assert values_with(define, '--seed=5').value == 5
  values = cli.new_flags()
  define(values)
  code = cli.run('command', '', lambda unused: 0, values, ['command', '--seed=-1'])
  assert code == 2
  assert error_line().startswith('command: error: --seed=-1: ')
