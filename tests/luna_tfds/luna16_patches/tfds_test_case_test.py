"""TFDS's own test case for new datasets."""

import pathlib
import tempfile

import fake_data
import tensorflow_datasets as tfds

from luna_tfds import Builder

# Two scans of train, and one of validation and of test.
SUBSETS = (0, 1, 8, 9)


class Luna16PatchesTest(tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = Builder
  BUILDER_CONFIG_NAMES_TO_TEST = ['axial_50px_all', 'cube_48mm_all']
  # The dataset is not downloaded, hence has no checksums.
  SKIP_CHECKSUMS = True

  @classmethod
  def setUpClass(cls):
    folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(folder.cleanup)
    scans = [fake_data.make_scan(subset, subset) for subset in SUBSETS]
    cls.download = fake_data.write_download(pathlib.Path(folder.name), scans)
    cls.EXAMPLE_DIR = folder.name
    subset_of = {scan.seriesuid: scan.subset for scan in scans}
    counts = dict.fromkeys(SUBSETS, 0)
    for row in cls.download.candidates:
      counts[subset_of[row[0]]] += 1
    cls.SPLITS = {
      'train': counts[0] + counts[1],
      'validation': counts[8],
      'test': counts[9],
    }
    super().setUpClass()

  def setUp(self):
    super().setUp()
    # Where the builder looks for the download by default.
    manual = pathlib.Path(self.tmp_dir) / 'downloads' / 'manual'
    manual.parent.mkdir(parents=True)
    manual.symlink_to(self.EXAMPLE_DIR)
