"""Programs: the only place where networks, pipelines and callbacks meet."""
