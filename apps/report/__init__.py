"""report.html: what was trained, what score to expect, how it went and why, in one file that needs no network."""
