from absl import flags
import pytest

from luna_tfds import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError

FLAGS = cli.new_flags()
_NAME = flags.DEFINE_string('name', None, 'Who is greeted.', flag_values=FLAGS)
_TIMES = flags.DEFINE_integer('times', 1, 'How often.', flag_values=FLAGS)
_LOUD = flags.DEFINE_boolean('loud', False, 'Whether to shout.', flag_values=FLAGS)

DOC = """Greets.

    greet --name=World
"""


def run(main, *arguments, **options):
  return cli.run('greet', DOC, main, FLAGS, ['greet', *arguments], **options)


def raises(error):
  def main(unused):
    raise error

  return main


def test_flags_reach_main():
  seen = []

  def main(rest):
    seen.append((rest, _NAME.value, _TIMES.value, _LOUD.value))

  assert run(main, '--name=World', '--times', '3', '--loud') == 0
  assert seen == [([], 'World', 3, True)]


def test_a_second_run_starts_from_the_defaults():
  seen = []

  def main(unused):
    seen.append((_NAME.value, _TIMES.value, _LOUD.value))

  run(main, '--name=World', '--times=3', '--loud')
  run(main)
  assert seen[1] == (None, 1, False)


@pytest.mark.parametrize('code', [0, 1, 3])
def test_exit_code_of_main(code):
  assert run(lambda unused: code) == code


def test_none_is_success():
  assert run(lambda unused: None) == 0


@pytest.mark.parametrize(
  ('error', 'code', 'message'),
  [
    (UsageError('rows.csv, row 3: no'), 2, 'rows.csv, row 3: no'),
    (ScanError('a.mhd: truncated'), 2, 'a.mhd: truncated'),
    (JobError('2 scans cannot be read'), 1, '2 scans cannot be read'),
    (OSError('no space left'), 1, 'no space left'),
    (KeyboardInterrupt(), 130, 'interrupted'),
  ],
)
def test_errors_become_one_line(error, code, message, error_line):
  assert run(raises(error)) == code
  assert error_line() == f'greet: error: {message}'


def test_bugs_are_not_hidden():
  with pytest.raises(ZeroDivisionError):
    run(raises(ZeroDivisionError()))


@pytest.mark.parametrize(
  ('argument', 'problem'),
  [
    ('--nmae=World', 'Did you mean: name'),
    ('--times=often', 'flag --times=often: invalid literal'),
    ('--verbosity=loud', 'value should be one of'),
    ('world', 'unknown argument world'),
  ],
)
def test_wrong_flags(argument, problem, error_line):
  assert run(raises(AssertionError('main ran')), argument) == 2
  assert problem.lower() in error_line().lower()


def test_unknown_flags_go_to_main_if_it_wants_them():
  seen = []
  assert run(seen.append, '--runner=Flink', '--times=2', 'x', pass_unknown=True) == 0
  assert seen == [['--runner=Flink', 'x']]


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull'])
def test_help(flag, capsys):
  assert run(raises(AssertionError('main ran')), '--name=x', flag) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'Greets.'
  assert '  --name: Who is greeted.' in lines
  assert '  --times: How often. (default: 1)' in [
    line.replace("'", '') for line in lines
  ]


def test_unknown_flag_with_a_suggestion():
  known = ['luna_dir', 'data_dir', 'config']
  error = cli.unknown_flag('--luna_dri=/tmp', known)
  assert str(error) == 'unknown argument --luna_dri; did you mean --luna_dir?'
  assert str(cli.unknown_flag('--zzz', known)) == 'unknown argument --zzz'


def test_integers():
  assert cli.parse_ints('48, 50,-1', 'patch_shape') == (48, 50, -1)
  for text in ('48,a', '48,', '', '1.5'):
    with pytest.raises(UsageError, match='--patch_shape must list integers'):
      cli.parse_ints(text, 'patch_shape')


@pytest.mark.parametrize('arguments', [(), ('--name=',)])
def test_required(arguments, error_line):
  assert run(lambda unused: cli.required_value(_NAME), *arguments) == 2
  assert error_line() == 'greet: error: --name is required'


def test_checked_turns_range_errors_into_usage_errors():
  def make(value):
    if value < 0:
      raise ValueError(f'value must be positive. Received: {value}')
    return value

  assert cli.as_usage_error(make, 3) == 3
  with pytest.raises(UsageError, match=r'positive\. Received: -1'):
    cli.as_usage_error(make, -1)
  with pytest.raises(UsageError, match='unexpected keyword'):
    cli.as_usage_error(make, valeu=1)


def test_two_commands_may_have_flags_of_one_name():
  other = cli.new_flags()
  times = flags.DEFINE_integer('times', 7, 'How often.', flag_values=other)
  seen = []

  def main(unused):
    cli.run('other', DOC, lambda unused: seen.append(times.value), other, ['other'])
    seen.append(_TIMES.value)

  run(main, '--times=2')
  assert seen == [7, 2]
