"""The clinicians' page. `page/` holds what browsers get, byte for byte; nothing is built or bundled."""
