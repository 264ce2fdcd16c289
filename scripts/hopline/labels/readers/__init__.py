"""One module a file format, each with ``FORMAT``, ``recognises(name, head)`` and ``read(path)``; see `sources`."""
