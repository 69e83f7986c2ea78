"""Files on disks and in object stores: paths, requests, atomic writes, locks."""
