"""Finished runs side by side: what differs in their recipes, what they reached, whether the difference is chance."""
