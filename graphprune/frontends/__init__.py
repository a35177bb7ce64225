"""Front ends: one file per source format, each turning it into a :class:`graphprune.graph.Graph`."""
