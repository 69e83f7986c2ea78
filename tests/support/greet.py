"""A command of tests."""

from absl import flags

from luna_tfds.command_line import cli

FLAGS = cli.new_flags()
NAME = flags.DEFINE_string('name', None, 'Who is greeted.', flag_values=FLAGS)
TIMES = flags.DEFINE_integer('times', 1, 'How often.', flag_values=FLAGS)
RATE = flags.DEFINE_float('rate', 1.0, 'How fast.', lower_bound=0, flag_values=FLAGS)
flags.DEFINE_alias('count', 'times', flag_values=FLAGS)
LOUD = flags.DEFINE_boolean('loud', False, 'Whether to shout.', flag_values=FLAGS)

DOC = """Greets.

    greet --name=World
"""


def run(main, *arguments, **options):
  """Runs the command with another `main`; returns its exit code."""
  return cli.run('greet', DOC, main, FLAGS, ['greet', *arguments], **options)


def raises(error):
  """Returns a `main` that raises an error."""

  def main(unused):
    raise error

  return main
