"""Drop-ins for three course exercises: `linear`, `planar` and `mnist`."""
