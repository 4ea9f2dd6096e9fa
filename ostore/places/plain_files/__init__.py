"""Folders of plain files for other programs: links to blobs, with a record of them, or copies with checksums."""
