"""Metadata, dependencies and commands of luna16_patches.

Lower bounds of the dependencies are here and in the dependency groups of pyproject.toml;
the versions that are tested are in constraints.txt.
"""

import pathlib
import re
import tomllib

import setuptools

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(
  r"__version__ = '([^']+)'", (_ROOT / 'luna_tfds' / '__init__.py').read_text()
)[1]

_GROUPS = tomllib.loads((_ROOT / 'pyproject.toml').read_text())['dependency-groups']

_COMMANDS = {
  'luna16-phantom': 'luna_tfds.phantom',
  'luna16-extract': 'beam_jobs.extract_patches',
  'luna16-train': 'trainer.train',
  'luna16-evaluate': 'trainer.evaluate',
  'luna16-predict': 'trainer.predict',
  'luna16-froc': 'trainer.froc',
  'luna16-crossval': 'trainer.crossval',
  'luna16-inspect': 'trainer.inspect',
  'luna16-visualize': 'trainer.visualize',
  'luna16-export': 'trainer.export',
  'luna16-demo': 'trainer.demo',
}


def _requirements(group: str) -> list[str]:
  """Returns the requirements of a dependency group and of the groups it includes."""
  requirements = []
  for entry in _GROUPS[group]:
    if isinstance(entry, str):
      requirements.append(entry)
    else:
      requirements += _requirements(entry['include-group'])
  return requirements


setuptools.setup(
  name='luna16-patches',
  version=_VERSION,
  description='LUNA16 false positive reduction: Beam job, TFDS dataset, Keras trainer',
  long_description=(_ROOT / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  classifiers=[
    'Development Status :: 5 - Production/Stable',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Medical Science Apps.',
    'Typing :: Typed',
  ],
  python_requires='>=3.11',
  packages=setuptools.find_packages(
    include=['luna_tfds*', 'beam_jobs*', 'model*', 'trainer*']
  ),
  package_data={
    'luna_tfds': ['py.typed'],
    'luna_tfds.luna16_patches': ['README.md', 'CITATIONS.bib', 'TAGS.txt'],
    'beam_jobs': ['py.typed'],
    'model': ['py.typed'],
    'trainer': ['py.typed'],
    'trainer.report': ['templates/*'],
  },
  install_requires=[
    'absl-py>=2.1',
    'apache-beam>=2.70',
    'fsspec>=2025.3',
    'google-crc32c>=1.5',
    'importlib_resources>=6.0',  # tensorflow-datasets needs it but does not declare it
    'jinja2>=3.1',
    'keras>=3.10',
    'matplotlib>=3.8',
    'mlcroissant>=1.0',  # the same
    'numpy>=2.0',
    'pillow>=10.0',
    'pyarrow>=16.0',
    'scikit-learn>=1.5',
    'scipy>=1.12',
    'SimpleITK>=2.4',
    'tensorboard>=2.19',
    'tensorflow>=2.19',
    'tensorflow-datasets>=4.9.9',
    'tqdm>=4.66',
  ],
  extras_require={group: _requirements(group) for group in _GROUPS},
  entry_points={
    'console_scripts': [f'{name} = {module}:run' for name, module in _COMMANDS.items()],
    # The TFDS builder finds the Beam job through this, without importing it.
    'luna16_patches.preparer': ['beam = beam_jobs.job:prepare'],
  },
)
