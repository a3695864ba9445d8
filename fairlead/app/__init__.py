"""The composition root: settings, wiring, server, worker, demo."""
