"""report.html: what was trained on what, what score to expect, how it went and why, in one file that needs no network."""
