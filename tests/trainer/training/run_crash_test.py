"""luna16-train after a kill or a power failure at any of its file operations.

Every state that the disk can then have is restored, and the same command runs again. The
history, the weights and the operating point must be those of an undisturbed run, bit by
bit. Before that, every file that has its final name must be complete.
"""

import collections
import dataclasses
import zipfile

import crash_states
import file_operations
import keras
import pytest

from luna_tfds.files import atomic_files
from model.networks import registry
from trainer import config as config_lib
from trainer import workdir as workdir_lib
from trainer.training import tensorboard_images


@pytest.fixture
def small_network(monkeypatch):
  """Replaces the network by a small one, and leaves out the TensorBoard pictures."""

  def build(name, image_shape, window_hu):
    image = keras.Input(image_shape, name='image')
    x = keras.layers.Rescaling(1 / 1000)(image)
    x = keras.layers.AveragePooling2D(10)(x)
    x = keras.layers.Dropout(0.3)(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(1, name='logit')(x))

  monkeypatch.setattr(registry, 'build', build)
  monkeypatch.setattr(
    tensorboard_images, 'TensorBoardImages', lambda *unused: keras.callbacks.Callback()
  )


@dataclasses.dataclass(frozen=True)
class Crashes:
  """What the disk can contain after crashes of a training.

  Attributes:
    versions: the contents that each file has when it gets its final name.
    result: what the undisturbed run trained.
    states: different states of the disk.
    unflushed: folders that can disappear with files in them that were flushed.
  """

  versions: dict
  result: dict
  states: list
  unflushed: list

  def mixed(self):
    """Returns the states with a threshold that was chosen for another model."""
    first, *_, last = (model_and_point(state.tree) for state in self.states)
    return [
      state.text
      for state in self.states
      if None not in model_and_point(state.tree)
      and model_and_point(state.tree) not in (first, last)
    ]

  def damaged(self):
    """Returns the states in which a file with its final name is not complete."""
    return [
      f'{state.text}: {name}'
      for state in self.states
      for name, content in state.tree.items()
      if content is not None
      and '.writing-' not in name
      and content not in self.versions[name]
    ]


def model_and_point(tree):
  return tree.get('run/model.keras'), tree.get('run/operating_point.json')


def result_of(folder):
  """Returns the trained weights, the history and the settings, without dates."""
  workdir = workdir_lib.Workdir(folder)
  found = {
    path.name: path.read_bytes()
    for path in (workdir.history.path, workdir.operating_point)
  }
  # Without the version of the code, which changes when a file of the checkout is edited.
  found[workdir.config.name] = config_lib.load(workdir.config)
  for path in (workdir.last, workdir.best, workdir.model):
    with zipfile.ZipFile(path) as archive:
      # Weights and optimizer. The other files have dates and numbered names of layers.
      found[path.name] = archive.read('model.weights.h5')
  return found


def record_crashes(disk, train):
  with file_operations.record(disk, ignored='tensorboard') as recording:
    assert train() == 0
  versions = collections.defaultdict(set)
  for count, operation in enumerate(recording.operations, 1):
    if isinstance(operation, file_operations.SetNames):
      for name, content in recording.disk_after(count).tree().items():
        versions[name].add(content)
  states = crash_states.distinct(crash_states.all_states(recording))
  print(f'{len(recording.operations)} file operations, {len(states)} different states')
  return Crashes(
    versions,
    result_of(disk / 'run'),
    states,
    crash_states.unflushed_folders(recording),
  )


def without_temporaries(states):
  """Returns one of each group of states that differ only in temporary files."""
  found = {}
  for state in states:
    files = {n: data for n, data in state.tree.items() if '.writing-' not in n}
    found[tuple(files.items())] = state
  return list(found.values())


def not_continued(disk, train, crashes, states):
  """Returns the states after which the same command has another result."""
  found = []
  for state in states:
    state.write_to(disk)
    try:
      assert train() == 0
    except Exception as error:
      found.append(f'{state.text}: {error!r}')
      continue
    result = result_of(disk / 'run')
    different = [n for n in crashes.result if result[n] != crashes.result[n]]
    if different:
      found.append(f'{state.text}: another {", ".join(different)}')
  print(f'states tried: {len(states)}')
  return found


@pytest.fixture
def disk(tmp_path):
  (tmp_path / 'disk').mkdir()
  return tmp_path / 'disk'


@pytest.fixture
def train(disk, run_train, small_network):
  """Returns a function: trains in `disk`; returns the exit code."""

  def run(*flags):
    keras.backend.clear_session()  # layers get the same names in each run
    return run_train(disk / 'run', *flags)

  return run


@pytest.mark.slow
def test_files_with_their_final_names_are_complete(disk, train):
  crashes = record_crashes(disk, train)
  assert crashes.damaged() == []
  assert crashes.unflushed == []


@pytest.mark.slow
def test_files_that_are_not_flushed_are_found(disk, train, monkeypatch):
  monkeypatch.setattr(atomic_files, '_flush', lambda path: None)
  assert record_crashes(disk, lambda: train('--epochs=1')).damaged()


@pytest.mark.slow
def test_a_run_is_continued_after_every_crash(disk, train):
  crashes = record_crashes(disk, train)
  states = without_temporaries(crashes.states)
  assert not_continued(disk, train, crashes, states) == []


@pytest.mark.slow
def test_a_model_never_has_the_threshold_of_another(disk, train):
  assert train('--epochs=1') == 0
  assert record_crashes(disk, lambda: train('--threshold=0.3')).mixed() == []


@pytest.mark.slow
def test_a_longer_run_is_continued_after_every_crash(disk, train):
  def train_longer():
    return train('--epochs=3')

  assert train() == 0
  crashes = record_crashes(disk, train_longer)
  assert crashes.damaged() == []
  states = without_temporaries(crashes.states)
  assert not_continued(disk, train_longer, crashes, states) == []
