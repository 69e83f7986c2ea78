import errno
import io
import pathlib
import re
import subprocess
import sys

from absl import flags
import greet
import pytest

import luna_tfds
from luna_tfds.command_line import cli
from luna_tfds.errors import JobError
from luna_tfds.errors import ScanError
from luna_tfds.errors import UsageError
from luna_tfds.files import store_path
from luna_tfds.files import store_requests


def test_flags_reach_main():
  seen = []

  def main(rest):
    seen.append((rest, greet.NAME.value, greet.TIMES.value, greet.LOUD.value))

  assert greet.run(main, '--name=World', '--times', '3', '--loud') == 0
  assert seen == [([], 'World', 3, True)]


@pytest.mark.parametrize(
  ('error', 'reason'),
  [
    (MemoryError(), 'MemoryError'),
    (MemoryError('Unable to allocate 3 GiB'), 'Unable to allocate 3 GiB'),
    (
      ImportError('a.so: failed to map segment from shared object'),
      'a.so: failed to map segment from shared object',
    ),
    (RuntimeError("can't start new thread"), "can't start new thread"),
    (OSError(errno.ENOMEM, 'Cannot allocate memory'), r'.* Cannot allocate memory'),
  ],
)
def test_memory_that_runs_out(error, reason, error_line):
  assert greet.run(greet.raises(error)) == 1
  pattern = rf'greet: error: not enough memory \({reason}\); free some, or raise .*'
  assert re.fullmatch(pattern, error_line())


def test_file_names_that_are_not_utf8(monkeypatch, error_line):
  monkeypatch.setattr(sys, 'getfilesystemencoding', lambda: 'ascii')
  assert greet.run(greet.raises(AssertionError('main ran'))) == 2
  assert (
    'file names as ascii; set the environment variable PYTHONUTF8=1' in error_line()
  )


def test_a_path_that_is_not_utf8(tmp_path, monkeypatch, error_line):
  main = greet.raises(AssertionError('main ran'))
  assert greet.run(main, '--name=folder\udcff') == 2
  assert r"error: '--name=folder\xff' is not valid UTF-8; rename it" in error_line()
  (tmp_path / 'folder\udcff').mkdir()
  monkeypatch.chdir(tmp_path / 'folder\udcff')
  assert greet.run(main, '--name=x') == 2
  assert r"folder\xff' is not valid UTF-8; rename it" in error_line()


def test_text_that_the_terminal_cannot_print(monkeypatch):
  printed = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(printed, encoding='ascii'))
  # A file name of which one byte is not UTF-8.
  assert greet.run(lambda unused: print('d\xe4ta/\udcff')) == 0
  assert printed.getvalue() == b'd\\xe4ta/\\udcff\n'


def test_a_second_run_starts_from_the_defaults():
  seen = []

  def main(unused):
    seen.append((greet.NAME.value, greet.TIMES.value, greet.LOUD.value))

  greet.run(main, '--name=World', '--times=3', '--loud')
  greet.run(main)
  assert seen[1] == (None, 1, False)


@pytest.mark.parametrize('code', [0, 1, 3])
def test_exit_code_of_main(code):
  assert greet.run(lambda unused: code) == code


def test_a_main_that_returns_nothing_succeeds():
  assert greet.run(lambda unused: None) == 0


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
  assert greet.run(greet.raises(error)) == code
  assert error_line() == f'greet: error: {message}'


def test_bugs_are_not_hidden():
  with pytest.raises(ZeroDivisionError):
    greet.run(greet.raises(ZeroDivisionError()))


@pytest.mark.parametrize(
  ('argument', 'problem'),
  [
    ('--nmae=World', 'Did you mean: name'),
    ('--times=often', 'greet: error: --times=often: must be an integer; see greet'),
    ('--rate=high', 'greet: error: --rate=high: must be a number; see greet --help'),
    ('--rate=-1', 'greet: error: --rate=-1: -1.0 is not a non-negative number'),
    ('--verbosity=loud', 'value should be one of'),
    ('world', 'unknown argument world'),
  ],
)
def test_wrong_flags(argument, problem, error_line):
  assert greet.run(greet.raises(AssertionError('main ran')), argument) == 2
  assert problem.lower() in error_line().lower()


def test_unknown_flags_are_passed_to_main_if_it_takes_them():
  seen = []
  assert (
    greet.run(seen.append, '--runner=Flink', '--times=2', 'x', pass_unknown=True) == 0
  )
  assert seen == [['--runner=Flink', 'x']]


@pytest.mark.parametrize('flag', ['--help', '-h', '--helpfull'])
def test_help(flag, capsys):
  assert greet.run(greet.raises(AssertionError('main ran')), '--name=x', flag) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'Greets.'
  assert '  --name: Who is greeted.' in lines
  assert "  --loud: Whether to shout. (default: 'false')" in lines


def test_unknown_flag_with_a_suggestion():
  known = ['luna_dir', 'data_dir', 'config']
  error = cli.unknown_flag('--luna_dri=/tmp', known)
  assert str(error) == 'unknown argument --luna_dri; did you mean --luna_dir?'
  assert str(cli.unknown_flag('--zzz', known)) == 'unknown argument --zzz; see --help'


def test_parse_ints():
  assert cli.parse_ints('48, 50,-1', 'patch_shape') == (48, 50, -1)
  for text in ('48,a', '48,', '', '1.5'):
    with pytest.raises(
      UsageError, match='--patch_shape must list integers separated by'
    ):
      cli.parse_ints(text, 'patch_shape')


@pytest.mark.parametrize('arguments', [(), ('--name=',)])
def test_required_value(arguments, error_line):
  assert greet.run(lambda unused: cli.required_value(greet.NAME), *arguments) == 2
  assert error_line() == 'greet: error: --name is required'


def test_as_usage_error():
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
    cli.run(
      'other', greet.DOC, lambda unused: seen.append(times.value), other, ['other']
    )
    seen.append(greet.TIMES.value)

  greet.run(main, '--times=2')
  assert seen == [7, 2]


def test_the_error_of_a_check_gets_a_prefix():
  def make(epochs):
    raise ValueError(f'epochs must be 1 or more. Received: {epochs}')

  with pytest.raises(UsageError, match=r'^--epochs must be 1 or more\. Received: 0'):
    cli.as_usage_error(make, epochs=0, flag_prefix='--')


def test_an_alias_sets_the_flag_and_not_the_next_run():
  seen = []

  def main(unused):
    seen.append(greet.TIMES.value)

  for arguments in (['--count=5'], [], ['--times=3'], ['--count=4'], []):
    assert greet.run(main, *arguments) == 0
  assert seen == [5, 1, 3, 4, 1]


def test_the_last_of_an_alias_and_its_flag_counts():
  seen = []

  def main(unused):
    seen.append(greet.TIMES.value)

  assert greet.run(main, '--count=5', '--times=2') == 0
  assert greet.run(main, '--times=2', '--count=5') == 0
  assert seen == [2, 5]


def test_help_names_an_alias_beside_its_flag(capsys):
  assert greet.run(greet.raises(AssertionError('main ran')), '--help') == 0
  text = capsys.readouterr().out
  assert "  --times (or --count): How often. (default: '1')" in text
  assert 'Alias for' not in text


def test_version(capsys):
  assert (
    greet.run(greet.raises(AssertionError('main ran')), '--times=often', '--version')
    == 0
  )
  assert capsys.readouterr().out == f'greet {luna_tfds.__version__}\n'


def test_output_folder_is_made(tmp_path):
  folder = tmp_path / 'a' / 'b'
  cli.make_output_folder(folder, 'output_dir')
  assert folder.is_dir()
  cli.make_output_folder(folder, 'output_dir')


def test_output_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'folder'):
    with pytest.raises(
      UsageError, match=r'^--output_dir: the folder .* cannot be made'
    ):
      cli.make_output_folder(folder, 'output_dir')


def test_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
  # By a stub: root may write everywhere.
  monkeypatch.setattr(cli.os, 'access', lambda path, mode: False)
  with pytest.raises(
    UsageError, match=r'^--output_dir: the folder .* cannot be written'
  ):
    cli.make_output_folder(tmp_path, 'output_dir')


@pytest.mark.parametrize(
  ('arguments', 'expected'), [((), None), (('--name=',), None), (('--name=~/x',), 'x')]
)
def test_optional_path(arguments, expected, monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  seen = []

  def main(unused):
    seen.append(cli.optional_path(greet.NAME))

  assert greet.run(main, *arguments) == 0
  (path,) = seen
  assert path == (expected and pathlib.Path('/home/someone') / expected)


@pytest.mark.parametrize('reader', ['head -1', 'true'])
@pytest.mark.parametrize('command', ['phantom', 'extract_patches'])
def test_help_into_a_pipe_that_is_closed(reader, command):
  package = 'luna_tfds' if command == 'phantom' else 'beam_jobs'
  done = subprocess.run(
    ['bash', '-c', f'"$0" -m {package}.{command} --help | {reader}', sys.executable],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stderr == ''


@pytest.mark.parametrize('arguments', [['--num-times=3'], ['--num-times', '3']])
def test_hyphens_in_flags_are_named(arguments, error_line):
  values = cli.new_flags()
  flags.DEFINE_integer('num_times', 1, 'How often.', flag_values=values)
  argv = ['greet', *arguments]
  for pass_unknown in (True, False):
    assert (
      cli.run('greet', greet.DOC, len, values, argv, pass_unknown=pass_unknown) == 2
    )
    assert re.search('[Dd]id you mean:? (--)?num_times ?\\?', error_line())


def test_a_path_may_be_the_url_of_a_store(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for text, path in (('s3://bucket/~', 's3://bucket/~'), ('~/x', f'{tmp_path}/x')):
    values = cli.new_flags()
    holder = flags.DEFINE_string('out_dir', text, 'A folder.', flag_values=values)
    values(['command'])
    for read in (cli.required_path, cli.optional_path):
      assert str(read(holder)) == path


def test_an_output_folder_in_a_store_must_be_writable(memory_url, monkeypatch):
  folder = store_path.as_path(memory_url) / 'out'
  cli.make_output_folder(folder, 'output_dir')
  assert not folder.exists()

  def refuse(path, data):
    raise store_requests.StoreError(errno.EACCES, 'Access Denied', str(path))

  monkeypatch.setattr(store_path.StorePath, 'write_bytes', refuse)
  with pytest.raises(UsageError, match=r'^--output_dir: .*Access Denied'):
    cli.make_output_folder(folder, 'output_dir')


@pytest.mark.parametrize('url', ['https://bucket/x', 'file:///tmp'])
def test_other_urls_are_no_path(url):
  values = cli.new_flags()
  holder = flags.DEFINE_string('out_dir', url, 'A folder.', flag_values=values)
  values(['command'])
  for read in (cli.required_path, cli.optional_path):
    with pytest.raises(UsageError, match=r'^--out_dir: \w+:// URLs are not supported'):
      read(holder)


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '>&- 2>&-'])
def test_a_stream_that_is_closed_is_not_missed(closed, tmp_path):
  command = f'exec "$0" -m luna_tfds.phantom --output_dir="$1" --scans=1 {closed}'
  shell = ['bash', '-c', command, sys.executable, tmp_path / 'luna']
  done = subprocess.run(shell, capture_output=True, check=True)
  assert b'Traceback' not in done.stderr
  assert (tmp_path / 'luna' / 'candidates.csv').is_file()
