"""Hounsfield units (HU) that more than one module needs."""

# Air. Also what a patch holds outside the scan, and the least value that is kept:
# scanners mark what lies outside their field of view with -2000, -2048 or -3024, which
# would otherwise leak into interpolated values.
AIR_HU = -1000

# The window of the article, from air to soft tissue. Networks and pictures use it too.
WINDOW_HU = (AIR_HU, 400)
