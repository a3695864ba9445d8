"""The catalog's tables as they are shipped; `SOURCES.md` beside them says where each comes from."""
