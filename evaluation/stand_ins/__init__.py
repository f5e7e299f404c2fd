"""Served stand-ins for models that cannot be had here: they know the drawn world, and every record says that they
do."""
