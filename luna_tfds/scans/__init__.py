"""Opens scans and reads their voxels: MetaImage, NIfTI, DICOM; from disks and stores."""
